"""`jaxhpo pbt`: population-based training."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jaxhpo.cli.launch import launch, show
from jaxhpo.cli.options import parse
from jaxhpo.config.run import PbtRun

if TYPE_CHECKING:
    from jaxhpo.study import Outcome


def pbt(config: PbtRun | None = None) -> "Outcome":
    """Trains a population and tunes its hyperparameters meanwhile; the default is the main job.

    Raises UsageError for what can't run, Interrupted when stopped after saving, Diverged when no
    member has a finite loss.
    """
    return launch(PbtRun() if config is None else config)


def main(argv: Sequence[str]) -> int:
    return show(pbt(parse(PbtRun, argv, "jaxhpo pbt")))
