"""The schedule that a run discovered: read off its history, and trained again from scratch."""

import math
from collections.abc import Iterable, Sequence

from jaxhpo.errors import UsageError
from jaxhpo.search.plan import Assignment, Extent, Parent, Plan, Point, Report, by_trial
from jaxhpo.search.segments import check_length, check_seed, cut, longest

Row = tuple[int, Point]
"""A point, and the step from which it holds."""


class Replay:
    """One trial (id 0) from scratch for `steps` steps, whose point changes at the given steps.

    The trial carries on while its point changes, so the point to train with is always the row's.
    Segments end at every change and are at most `segment` steps long. Raises UsageError if the rows
    do not start at step zero, repeat a step, or name different hyperparameters.
    """

    def __init__(self, rows: Sequence[Row], steps: int, segment: int, seed: int) -> None:
        self._rows = _checked(rows)
        self._seed = check_seed(seed)
        check_length("steps", steps)
        changes = [start for start, _ in self._rows if 0 < start < steps]
        self._ends = cut([*changes, steps], check_length("segment", segment))
        self._round = 0
        self._plan: Plan | None = None

    @property
    def extent(self) -> Extent:
        return Extent(1, 1, longest(self._ends), trained=self._ends[-1])

    @property
    def foreseen(self) -> tuple[Point, ...]:
        return (self._rows[0][1],)

    def first(self) -> Plan:
        self._round = 0
        return self._planned()

    def next(self, report: Report) -> Plan | None:
        if self._plan is None:
            raise ValueError("nothing is planned: a report answers a plan")
        by_trial(self._plan, report)
        self._round += 1
        if self._round == len(self._ends):
            self._plan = None
            return None
        return self._planned()

    def _planned(self) -> Plan:
        start = self._ends[self._round - 1] if self._round else 0
        point = [point for since, point in self._rows if since <= start][-1]
        parent = Parent(0) if self._round else None
        row = Assignment(0, point, parent, self._ends[self._round] - start, self._seed)
        self._plan = Plan((row,))
        return self._plan


def lineage_points(history: Iterable[tuple[Plan, Report]], trial: int) -> tuple[Row, ...]:
    """The points that made `trial`'s weights, each with the step from which it held.

    Follows parents back to the newborn; a point equal to the one before it is left out. A life
    whose copy did not keep the step counter starts at zero, and what came before is left out too.
    Raises LookupError if the history has no such trial.
    """
    rows: dict[int, list[tuple[int, Assignment]]] = {}  # trial -> start and row, in order
    for plan, report in history:
        results = by_trial(plan, report)
        for row in plan.assignments:
            start = results[row.trial].step - row.steps
            rows.setdefault(row.trial, []).append((start, row))
    if trial not in rows:
        raise LookupError(f"no trial {trial} in this history; there are {sorted(rows)}")
    lives, until = [], math.inf
    ancestor: int | None = trial
    while ancestor is not None:
        life = [(start, row) for start, row in rows.get(ancestor, ()) if start < until]
        if not life:
            break
        lives.append(life)
        until, born = life[0]
        ancestor = None if born.parent is None else born.parent.trial
    return _changes((start, row.point) for life in reversed(lives) for start, row in life)


def _changes(rows: Iterable[Row]) -> tuple[Row, ...]:
    kept: list[Row] = []
    for start, point in rows:
        if not kept or kept[-1][1] != point:
            kept.append((start, point))
    return tuple(kept)


def _checked(rows: Sequence[Row]) -> tuple[Row, ...]:
    checked = tuple(sorted(((start, dict(point)) for start, point in rows), key=lambda r: r[0]))
    starts = [start for start, _ in checked]
    if not checked or starts[0] != 0:
        raise UsageError(f"schedule: the first point must hold from step 0, got steps {starts}")
    if len(set(starts)) < len(starts):
        raise UsageError(f"schedule: two points hold from the same step, got steps {starts}")
    names = set(checked[0][1])
    for start, point in checked:
        if set(point) != names:
            odd = sorted(names ^ set(point))
            raise UsageError(f"schedule: {', '.join(odd)} is not given at every step (see {start})")
    return checked
