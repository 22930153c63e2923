"""The protocol between schedulers and the engine: plans go down, reports come back."""

from collections.abc import Mapping
from dataclasses import dataclass
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
    """What every place does in the next segment; rows that end early wait, frozen."""

    assignments: tuple[Assignment, ...]

    @property
    def max_steps(self) -> int:
        return max(max(row.steps, row.probe) for row in self.assignments)


@dataclass(frozen=True)
class Result:
    """What came of one assignment. `loss` is the raw held-out loss, `score` what ranks: lower is better."""

    trial: int
    step: int
    loss: float
    score: float
    samples: tuple[float, ...] = ()


Report = tuple[Result, ...]


class Scheduler(Protocol):
    """A pure fold from reports to plans.

    >>> plan = scheduler.first()                 # doctest: +SKIP
    >>> while plan is not None:                  # doctest: +SKIP
    ...     plan = scheduler.next(run(plan))

    The plan depends on nothing but the constructor's arguments and the reports so far, in order, so
    replaying a log gives the same plans on every host and after every restart.
    """

    def first(self) -> Plan: ...

    def next(self, report: Report) -> Plan | None: ...
