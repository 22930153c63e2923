"""The hyperparameter schedule that a finished run discovered, read from its log."""

from pathlib import Path

from jaxhpo.errors import UsageError
from jaxhpo.record.history import history
from jaxhpo.search.plan import Point
from jaxhpo.search.replay import lineage_points
from jaxhpo.study.replayed import plan_of, report_of


def discovered(run: Path, option: str = "schedule_from") -> tuple[tuple[int, Point], ...]:
    """`(step, point)` rows of the best trial's line, from step zero on.

    Raises UsageError, naming the option, where `run` is no run directory, or not a finished one.
    """
    past = history(run)
    if past.finish is None:
        raise UsageError(f"{option}={run}: the run has not finished; resume it first")
    pairs = [
        (plan_of(plan), report_of(report))
        for plan, report in zip(past.plans, past.reports, strict=True)
    ]
    return lineage_points(pairs, past.finish["best"]["trial"])
