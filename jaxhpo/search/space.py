"""The dimensions that a search may change, and points in them."""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jaxhpo.errors import UsageError
from jaxhpo.search.distributions import Distribution, parse
from jaxhpo.search.plan import Point


@dataclass(frozen=True)
class Dimension:
    """One searched hyperparameter: its dotted name, and whether a new value changes shapes."""

    name: str
    distribution: Distribution
    static: bool = False


@dataclass(frozen=True)
class Space:
    """Dimensions in order; a point is a mapping from each name to a value inside its bounds.

    >>> space = Space.from_mapping({"floor": "uniform(0, 0.5)"}, lambda name: False, ["floor"])
    >>> space.decode([0.5])
    {'floor': 0.25}
    """

    dimensions: tuple[Dimension, ...]

    def __post_init__(self) -> None:
        for name in self.names:
            if self.names.count(name) > 1:
                raise UsageError(f"space: dimension {name!r} is given twice")

    @classmethod
    def from_mapping(
        cls,
        mapping: Mapping[str, str | Distribution],
        is_static: Callable[[str], bool],
        known: Sequence[str],
    ) -> "Space":
        """A space from names and texts. Raises UsageError on an unknown name or a wrong text."""
        for name in mapping:
            if name not in known:
                raise UsageError(f"space: unknown dimension {name!r}{nearest(name, known)}")
        read = {n: parse(n, form) if isinstance(form, str) else form for n, form in mapping.items()}
        return cls(tuple(Dimension(name, form, is_static(name)) for name, form in read.items()))

    def to_mapping(self) -> dict[str, str]:
        """Names and texts; `from_mapping` reads them back to an equal space."""
        return {d.name: str(d.distribution) for d in self.dimensions}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(d.name for d in self.dimensions)

    @property
    def static(self) -> tuple[str, ...]:
        """Names of the dimensions that change shapes."""
        return tuple(d.name for d in self.dimensions if d.static)

    def decode(self, unit: Iterable[float]) -> Point:
        """f64[dimensions] in the unit cube -> point; values outside the cube are clipped."""
        pairs = zip(self.dimensions, unit, strict=True)
        return {d.name: d.distribution.decode(float(u)) for d, u in pairs}

    def encode(self, point: Point) -> np.ndarray:
        """Point -> f64[dimensions] in the unit cube; `decode` gives the point back."""
        return np.array([d.distribution.encode(point[d.name]) for d in self.dimensions])

    def sample(self, rng: np.random.Generator) -> Point:
        return {d.name: d.distribution.sample(rng) for d in self.dimensions}

    def sample_spread(self, rng: np.random.Generator, count: int) -> tuple[Point, ...]:
        """Latin hypercube: on every dimension, one point in each of `count` equal shares.

        Source: McKay, Beckman and Conover 1979.
        """
        columns = [(rng.permutation(count) + rng.random(count)) / count for _ in self.dimensions]
        return tuple(self.decode(column[i] for column in columns) for i in range(count))

    def check(self, point: Point) -> Point:
        """The point with plain Python values. Raises UsageError naming what is wrong with it."""
        for name in point:
            if name not in self.names:
                raise UsageError(f"point: unknown dimension {name!r}{nearest(name, self.names)}")
        checked = {}
        for d in self.dimensions:
            if d.name not in point:
                raise UsageError(f"point: no value for dimension {d.name!r}")
            value = point[d.name]
            if not d.distribution.contains(value):
                raise UsageError(f"point: {d.name}={value!r} is outside {d.distribution}")
            checked[d.name] = d.distribution.clip(value)
        return checked


def nearest(name: str, known: Sequence[str]) -> str:
    """'; did you mean ...?', or what is allowed where nothing is near."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    return f"; the nearest is {near[0]!r}" if near else "; there are none"
