"""The way from a config to a study and its report: the backend is set up before JAX is imported."""

import sys
from typing import TYPE_CHECKING

from jaxhpo.config.run import Run
from jaxhpo.population.config import prepare_backend
from jaxhpo.population.launchers import processes

if TYPE_CHECKING:
    from jaxhpo.study import Outcome


def launch(config: Run) -> "Outcome":
    """Runs what the config describes to its end, and writes the report."""
    prepare_backend(config.execution, config.members, processes(config.distributed))
    from jaxhpo.study import execute

    return reported(execute(config))


def reported(outcome: "Outcome") -> "Outcome":
    """The same outcome, once the page of its run directory is written."""
    from jaxhpo.report.page import write_report

    if outcome.first:
        write_report(outcome.directory)
    return outcome


def show(outcome: "Outcome") -> int:
    """Prints what a finished run found; the exit status."""
    from jaxhpo.cli.report import show as show_run

    sys.stderr.flush()
    if not outcome.first:
        return 0
    show_run(outcome.directory, outcome.directory / "report" / "index.html")
    return 0
