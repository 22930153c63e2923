"""Trials of different lengths: a search that asks for equal steps, cut at each trial's own end."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from jaxhpo.search.plan import Assignment, Extent, Plan, Point, Report, Result, Scheduler, by_trial


class OwnLengths:
    """`inner`, of whose trials none trains beyond `length_of(point)` steps.

    A row is cut where its trial ends. From then on the trial has no row but keeps its place, and
    `inner` is told its last result again, as if it had gone on training without any change. Trials
    start as newborns and carry on: nobody copies another.
    """

    def __init__(self, inner: Scheduler, length_of: Callable[[Point], int]) -> None:
        self.inner, self._length_of = inner, length_of
        self._forget()

    def _forget(self) -> None:
        self._asked: Plan | None = None  # what `inner` asked for
        self._made: dict[int, int] = {}  # trial -> the steps that it has made
        self._believed: dict[int, int] = {}  # trial -> the step at which `inner` takes it to be
        self._last: dict[int, Result] = {}

    @property
    def extent(self) -> Extent:
        return self.inner.extent

    @property
    def foreseen(self) -> tuple[Point, ...] | None:
        return self.inner.foreseen

    def first(self) -> Plan:
        self._forget()
        plan = self._next(self.inner.first())
        if plan is None:
            raise ValueError("no trial has any steps")
        return plan

    def next(self, report: Report) -> Plan | None:
        if self._asked is None:
            raise ValueError("nothing is planned: a report answers a plan")
        results = {result.trial: result for result in report}
        by_trial(Plan(self._cut(self._asked)), report)
        for result in report:
            self._made[result.trial], self._last[result.trial] = result.step, result
        return self._next(self.inner.next(self._told(results)))

    def close(self) -> None:
        getattr(self.inner, "close", lambda: None)()

    def _next(self, plan: Plan | None) -> Plan | None:
        """The next plan that has a row; those that have none are answered at once."""
        while plan is not None:
            for row in plan.assignments:
                if row.parent is None:
                    self._made[row.trial] = self._believed[row.trial] = 0
                elif not row.carries_on or row.parent.step is not None:
                    raise ValueError(f"trial {row.trial} copies another, which may be longer")
            self._asked = plan
            rows = self._cut(plan)
            if rows:
                there = {row.trial for row in rows}
                done = [row.trial for row in plan.assignments if row.trial not in there]
                return Plan(rows, tuple(sorted({*plan.paused, *done})))
            plan = self.inner.next(self._told({}))
        self._asked = None
        return None

    def _cut(self, plan: Plan) -> tuple[Assignment, ...]:
        left = lambda row: self._length_of(row.point) - self._made[row.trial]
        return tuple(
            replace(row, steps=min(row.steps, left(row)))
            for row in plan.assignments
            if left(row) > 0
        )

    def _told(self, results: dict[int, Result]) -> Report:
        rows: Sequence[Assignment] = () if self._asked is None else self._asked.assignments
        for row in rows:
            self._believed[row.trial] += row.steps
        return tuple(
            replace(results.get(row.trial, self._last[row.trial]), step=self._believed[row.trial])
            for row in rows
        )
