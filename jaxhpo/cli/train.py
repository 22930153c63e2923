"""`jaxhpo train`: one model, a population of one."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jaxhpo.cli.launch import launch, show
from jaxhpo.cli.options import parse
from jaxhpo.config.run import TrainRun

if TYPE_CHECKING:
    from jaxhpo.study import Outcome


def train(config: TrainRun | None = None) -> "Outcome":
    """Trains one model, with `schedule_from` on the hyperparameter schedule that a run discovered.

    Raises UsageError for what can't run, Interrupted when stopped after saving, Diverged when the
    loss is no longer finite.
    """
    return launch(TrainRun() if config is None else config)


def main(argv: Sequence[str]) -> int:
    return show(train(parse(TrainRun, argv, "jaxhpo train")))
