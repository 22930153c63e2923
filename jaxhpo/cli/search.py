"""`jaxhpo search`: any search, over traced and static dimensions alike."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jaxhpo.cli.launch import launch, show
from jaxhpo.cli.options import parse
from jaxhpo.config.run import SearchRun

if TYPE_CHECKING:
    from jaxhpo.study import Outcome


def run_search(config: SearchRun | None = None) -> "Outcome":
    """Runs a search to its end: `config.search.scheduler` names it, `config.space` what it varies.

    Raises UsageError for what can't run, Interrupted when stopped after saving, Diverged when no
    trial has a finite loss.
    """
    return launch(SearchRun() if config is None else config)


def main(argv: Sequence[str]) -> int:
    return show(run_search(parse(SearchRun, argv, "jaxhpo search")))
