"""Fixed points, each trained in full: grid and random search, and PBT's own starting points."""

from collections.abc import Sequence
from dataclasses import replace

from jaxhpo.errors import UsageError
from jaxhpo.search.plan import Assignment, Extent, Parent, Plan, Point, Report, by_trial
from jaxhpo.search.segments import check_length, check_seed, cut, longest


class Fixed:
    """Every point is one trial, all at once, for `steps` steps; trial i has point i and seed i.

    `segment` is the length of a segment, or the steps at which segments end (to keep in time with
    another scheduler). `seeds` replaces the trials' seeds.
    """

    def __init__(
        self,
        points: Sequence[Point],
        steps: int,
        segment: int | Sequence[int],
        seeds: Sequence[int] | None = None,
    ) -> None:
        if not points:
            raise UsageError("points: there must be at least one")
        self._points = tuple(dict(point) for point in points)
        self._seeds = tuple(range(len(points)) if seeds is None else map(check_seed, seeds))
        if len(self._seeds) != len(points):
            raise UsageError(f"seeds: {len(self._seeds)} for {len(points)} points; give one each")
        self._ends = _ends(check_length("steps", steps), segment)
        self._plan: Plan | None = None
        self._round = 0

    @property
    def extent(self) -> Extent:
        count = len(self._points)
        return Extent(count, count, longest(self._ends), trained=count * self._ends[-1])

    @property
    def foreseen(self) -> tuple[Point, ...]:
        return self._points

    def first(self) -> Plan:
        self._round = 0
        rows = zip(self._points, self._seeds, strict=True)
        self._plan = Plan(
            tuple(
                Assignment(trial, point, None, self._ends[0], seed)
                for trial, (point, seed) in enumerate(rows)
            )
        )
        return self._plan

    def next(self, report: Report) -> Plan | None:
        if self._plan is None:
            raise ValueError("nothing is planned: a report answers a plan")
        by_trial(self._plan, report)
        self._round += 1
        if self._round == len(self._ends):
            self._plan = None
            return None
        steps = self._ends[self._round] - self._ends[self._round - 1]
        self._plan = Plan(
            tuple(
                replace(row, parent=Parent(row.trial), steps=steps)
                for row in self._plan.assignments
            )
        )
        return self._plan


def _ends(steps: int, segment: int | Sequence[int]) -> tuple[int, ...]:
    if isinstance(segment, int):
        return cut([steps], check_length("segment", segment))
    ends = tuple(sorted({check_length("segment", end) for end in segment}))
    if not ends or ends[-1] != steps:
        raise UsageError(f"segment={tuple(segment)!r}: the last segment must end at steps={steps}")
    return ends
