"""Proposers: where the points of new trials come from. These look at no result."""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from jaxhpo.errors import UsageError
from jaxhpo.search.distributions import Choice, Integer
from jaxhpo.search.plan import Point, Value
from jaxhpo.search.space import MOST_DRAWS, Dimension, Space

LARGEST_GRID = 100_000


class Proposer(Protocol):
    """Gives points to trials, and may learn from what came of them.

    `start` forgets everything. `propose(i)` gives the point of trial i, in order of i, or None
    where no more trials are to be had; `limit` says after how many, if that is known. `report`
    tells the score of a trial at a step at which it was ranked or ended (NaN: it diverged); False
    means that the trial is another's by now, and is to be let go. `leave` tells of each trial that
    nothing more will come of it. `foreseen` gives the first points where they depend on no report.
    """

    @property
    def limit(self) -> int | None: ...

    def start(self) -> None: ...

    def propose(self, trial: int) -> Point | None: ...

    def report(self, trial: int, step: int, score: float) -> bool: ...

    def leave(self, trial: int) -> None: ...

    def foreseen(self, count: int) -> tuple[Point, ...] | None: ...


class Listed:
    """Points that are known beforehand, in order: `initial` first."""

    def __init__(self, space: Space, seed: int, initial: Sequence[Point] = ()) -> None:
        self.space, self.seed = space, seed
        self.initial = tuple(space.check(point) for point in initial)

    @property
    def limit(self) -> int | None:
        return None

    def start(self) -> None:
        pass

    def propose(self, trial: int) -> Point | None:
        if trial < len(self.initial):
            return self.initial[trial]
        return self._point(trial - len(self.initial))

    def report(self, trial: int, step: int, score: float) -> bool:
        return True

    def leave(self, trial: int) -> None:
        pass

    def foreseen(self, count: int) -> tuple[Point, ...]:
        points = (self.propose(trial) for trial in range(count))
        return tuple(point for point in points if point is not None)

    def _point(self, index: int) -> Point | None:
        raise NotImplementedError


class Random(Listed):
    """Points drawn independently; trial i's depends on the seed and i alone."""

    def _point(self, index: int) -> Point:
        return self.space.sample(np.random.default_rng([self.seed, index]))


class Sobol(Listed):
    """Points of a scrambled Sobol sequence, more even than random ones; those that break a
    constraint are left out.

    Source: Owen 1998, scrambling by a random matrix and shift as in scipy's `qmc.Sobol`.
    """

    def __init__(self, space: Space, seed: int, initial: Sequence[Point] = ()) -> None:
        super().__init__(space, seed, initial)
        self._points: list[Point] = []
        self._more = self._sequence()

    def _point(self, index: int) -> Point:
        while len(self._points) <= index:
            self._points.append(next(self._more))
        return self._points[index]

    def _sequence(self) -> Iterator[Point]:
        import warnings

        from scipy.stats import qmc  # scipy comes with jax; 0.5 s to import

        sobol = qmc.Sobol(len(self.space.dimensions), rng=np.random.default_rng(self.seed))
        left_out = 0
        with warnings.catch_warnings():
            # scipy wants powers of two at once; a search takes points one by one
            warnings.simplefilter("ignore")
            units = sobol.random(1)
        while left_out < MOST_DRAWS:
            for unit in units:
                point = self.space.decode(unit)
                left_out = 0 if self.space.allows(point) else left_out + 1
                if not left_out:
                    yield point
            units = sobol.random(1)
        rules = "; ".join(map(str, self.space.constraints))
        raise UsageError(f"constraints: none of {MOST_DRAWS} points in a row satisfies {rules}")


class Grid(Listed):
    """All combinations of a few values of each dimension: every choice, and `levels` values from
    bound to bound of the others (equal steps in the unit interval).

    Combinations that break a constraint are left out; a dimension that does not exist adds none.
    Raises UsageError for a grid of more than 100,000 points, or of none.
    """

    def __init__(
        self, space: Space, seed: int, initial: Sequence[Point] = (), levels: int = 3
    ) -> None:
        super().__init__(space, seed, initial)
        values = {d.name: _levels(d, levels) for d in space.dimensions}
        size = math.prod(map(len, values.values()))
        if size > LARGEST_GRID:
            sizes = " x ".join(str(len(each)) for each in values.values())
            raise UsageError(
                f"search.levels={levels!r} makes a grid of {sizes} = {size} points; allowed: "
                f"{LARGEST_GRID}; use fewer levels or another scheduler"
            )
        self._grid = tuple(_combinations(space, values))
        if not self._grid:
            rules = "; ".join(map(str, space.constraints))
            raise UsageError(f"constraints: no point of the grid satisfies {rules}")

    @property
    def limit(self) -> int:
        return len(self.initial) + len(self._grid)

    def _point(self, index: int) -> Point | None:
        return self._grid[index] if index < len(self._grid) else None


def _levels(dimension: Dimension, levels: int) -> tuple[Value, ...]:
    distribution = dimension.distribution
    if isinstance(distribution, Choice):
        return distribution.values
    if isinstance(distribution, Integer) and distribution.high - distribution.low < levels:
        return tuple(range(distribution.low, distribution.high + 1))
    units = np.linspace(0, 1, levels) if levels > 1 else np.array([0.5])
    return tuple(dict.fromkeys(distribution.decode(float(unit)) for unit in units))


def _combinations(space: Space, values: dict[str, tuple[Value, ...]]) -> Iterator[Point]:
    seen: set[tuple] = set()
    for chosen in itertools.product(*values.values()):
        named = dict(zip(values, chosen, strict=True))
        point = space.build(lambda d, named=named: named[d.name])
        key = tuple(point.items())
        if key not in seen and space.allows(point):
            seen.add(key)
            yield point
