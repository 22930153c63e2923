"""Children of members that another run has trained: they start together and end together."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from jaxhpo.errors import UsageError
from jaxhpo.search.plan import KEEP_ALL, Assignment, Extent, Parent, Plan, Point, Report, by_trial
from jaxhpo.search.segments import check_length, check_seed, cut


@dataclass(frozen=True)
class Child:
    """What becomes of a fork: `steps` more steps from the state of trial `source`, at `start`.

    `start` is the child's own first step: its source's, or zero where `keep` has no step.
    """

    source: int
    point: Point
    start: int
    steps: int
    seed: int
    keep: tuple[str, ...] = KEEP_ALL
    group: str = ""


class Forked:
    """Trains every child once. Trials 0 to m - 1 are the `sources`, whose state is there before the
    first plan; the children are m, m + 1, ...

    Each child has a share of every segment, so that all end with the last one; a lone child's
    segments end at `stops` too (its own steps). Segments are at most `segment` steps long, unless a
    child is so short that it could have no step in one of them.
    """

    def __init__(
        self, sources: int, children: Sequence[Child], segment: int, stops: Sequence[int] = ()
    ) -> None:
        if not children:
            raise UsageError("fork: there must be at least one child")
        check_length("segment", segment)
        for child in children:
            check_length("steps", child.steps)
            check_seed(child.seed)
            if not 0 <= child.source < sources:
                raise ValueError(f"source={child.source}; there are {sources} sources")
        self.children, self._sources = tuple(children), sources
        self._ends = _ends(self.children, segment, stops)
        self._round = 0
        self._plan: Plan | None = None

    @property
    def extent(self) -> Extent:
        starts = [
            len({c.start + at for c, at in zip(self.children, begun, strict=True)})
            for begun in zip(*([0, *ends[:-1]] for ends in self._ends), strict=True)
        ]
        count = len(self.children)
        return Extent(
            rows=count,
            held=count,
            steps=max(max(_lengths(ends)) for ends in self._ends),
            trained=sum(child.steps for child in self.children),
            starts=max(starts),
        )

    @property
    def foreseen(self) -> tuple[Point, ...]:
        return tuple(child.point for child in self.children)

    def first(self) -> Plan:
        self._round = 0
        return self._planned()

    def next(self, report: Report) -> Plan | None:
        if self._plan is None:
            raise ValueError("nothing is planned: a report answers a plan")
        by_trial(self._plan, report)
        self._round += 1
        if self._round == len(self._ends[0]):
            self._plan = None
            return None
        return self._planned()

    def _planned(self) -> Plan:
        rows = []
        for trial, (child, ends) in enumerate(
            zip(self.children, self._ends, strict=True), start=self._sources
        ):
            born = self._round == 0
            row = Assignment(
                trial=trial,
                point=child.point,
                parent=Parent(child.source if born else trial),
                steps=_lengths(ends)[self._round],
                seed=child.seed,
                keep=child.keep if born else KEEP_ALL,
                group=child.group,
            )
            rows.append(row)
        self._plan = Plan(tuple(rows))
        return self._plan


def _ends(
    children: Sequence[Child], segment: int, stops: Sequence[int]
) -> tuple[tuple[int, ...], ...]:
    """By child, the steps made by the end of each segment."""
    if len(children) == 1:
        (child,) = children
        inside = [stop - child.start for stop in stops if 0 < stop - child.start < child.steps]
        return (cut([*inside, child.steps], segment),)
    lengths = [child.steps for child in children]
    rounds = min(math.ceil(max(lengths) / segment), min(lengths))
    return tuple(
        tuple(steps * number // rounds for number in range(1, rounds + 1)) for steps in lengths
    )


def _lengths(ends: Sequence[int]) -> list[int]:
    return [end - begin for begin, end in zip((0, *ends), ends, strict=False)]
