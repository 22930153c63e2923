"""The protocol between schedulers and the engine: plans go down, reports come back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

Value = float | int | str
Point = Mapping[str, Value]

KEEP_ALL = ("params", "moments", "step")


@dataclass(frozen=True)
class Parent:
    """The state that a trial starts from: a trial's newest (`step` None) or an older one."""

    trial: int
    step: int | None = None


@dataclass(frozen=True)
class Assignment:
    """What one place of the population does next.

    `parent` says where its state comes from: the trial itself (carry on), another trial (copy it),
    an older step (restore it), or None (a newborn). `keep` names the parts a copy takes over; the
    rest is newborn. `probe` is the number of cool-down steps trained after the segment on a copy
    that is thrown away; the copy's held-out loss is then the score. Zero: the raw loss ranks.
    """

    trial: int
    point: Point
    parent: Parent | None
    steps: int
    seed: int
    keep: tuple[str, ...] = KEEP_ALL
    probe: int = 0
    group: str = ""

    @property
    def carries_on(self) -> bool:
        return self.parent == Parent(self.trial)


@dataclass(frozen=True)
class Plan:
    """What every place does in the next segment; rows that end early wait, frozen.

    `paused` are trials that have no row but whose newest state a later plan may carry on or copy. A
    trial that is in neither is let go: its state is gone, unless a checkpoint has it.
    """

    assignments: tuple[Assignment, ...]
    paused: tuple[int, ...] = ()

    @property
    def max_steps(self) -> int:
        return max(max(row.steps, row.probe) for row in self.assignments)


@dataclass(frozen=True)
class Result:
    """What came of one assignment: lower is better, NaN ranks last.

    `step` is the trial's own step after the segment, `loss` the raw held-out loss in nats, `score`
    what ranks (the probe's held-out loss if there was one, else `loss`), and `samples` the
    per-batch held-out losses whose mean is the score. `metrics` are measured of the predictions
    that `loss` is of; where one of them ranks, the score is that of the probe, its sign such that
    lower is better.
    """

    trial: int
    step: int
    loss: float
    score: float
    samples: tuple[float, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)


Report = tuple[Result, ...]


def by_trial(plan: Plan, report: Report) -> dict[int, Result]:
    """The report's results by trial id. Raises ValueError if it does not answer this plan."""
    asked = [row.trial for row in plan.assignments]
    results = {result.trial: result for result in report}
    if len(report) != len(asked) or set(results) != set(asked):
        answered = [result.trial for result in report]
        raise ValueError(f"a report on trials {answered} does not answer a plan of trials {asked}")
    return results


@dataclass(frozen=True)
class Extent:
    """The most that a scheduler ever asks of the engine, known before anything runs.

    In one plan: `rows` assignments, `held` trials (paused ones too), `steps` and `probe` of one
    row, `starts` different steps at which rows begin. Over the whole search: `trained` and `probed`
    member-steps.
    """

    rows: int
    held: int
    steps: int
    trained: int
    probe: int = 0
    probed: int = 0
    starts: int = 1


class Scheduler(Protocol):
    """A pure fold from reports to plans.

    >>> plan = scheduler.first()                 # doctest: +SKIP
    >>> while plan is not None:                  # doctest: +SKIP
    ...     plan = scheduler.next(run(plan))

    The plan depends on nothing but the constructor's arguments and the reports so far, in order, so
    replaying a log gives the same plans on every host and after every restart. `foreseen` are the
    points of all trials in the order of their ids, where they do not depend on reports, else None.
    """

    @property
    def extent(self) -> Extent: ...

    @property
    def foreseen(self) -> tuple[Point, ...] | None: ...

    def first(self) -> Plan: ...

    def next(self, report: Report) -> Plan | None: ...
