"""The dimensions that a search may change, and points in them."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from jaxhpo.errors import UsageError
from jaxhpo.search.distributions import Choice, Distribution
from jaxhpo.search.plan import Point, Value
from jaxhpo.search.rules import Rule, parse_rule
from jaxhpo.search.texts import parse_dimension
from jaxhpo.search.values import nearest

MOST_DRAWS = 10_000
"""Draws after which no point is thought to satisfy the constraints."""

MOST_REFUSED = 100


@dataclass(frozen=True)
class Dimension:
    """One searched hyperparameter: its dotted name, and whether a new value changes shapes.

    `when`: it exists only in points that keep this rule (and have what the rule compares).
    """

    name: str
    distribution: Distribution
    static: bool = False
    when: Rule | None = None


@dataclass(frozen=True)
class Space:
    """Dimensions in order, and constraints between them.

    A point is a mapping from the name of each dimension that exists in it to a value inside its
    bounds; a constraint counts where all it compares exists. Raises UsageError for a dimension
    given twice, and for a rule that names none or depends on itself.

    >>> space = Space.from_mapping({"floor": "uniform(0, 0.5)"}, lambda name: False, ["floor"])
    >>> space.decode([0.5])
    {'floor': 0.25}
    """

    dimensions: tuple[Dimension, ...]
    constraints: tuple[Rule, ...] = ()

    def __post_init__(self) -> None:
        for name in self.names:
            if self.names.count(name) > 1:
                raise UsageError(f"space: dimension {name!r} is given twice")
        values = {d.name: _choices(d.distribution) for d in self.dimensions}
        resolved = tuple(replace(d, when=_when(d, values)) for d in self.dimensions)
        object.__setattr__(self, "dimensions", resolved)
        object.__setattr__(
            self, "constraints", tuple(_resolved("constraint", c, values) for c in self.constraints)
        )
        _ = self._order

    @classmethod
    def from_mapping(
        cls,
        mapping: Mapping[str, str | Distribution],
        is_static: Callable[[str], bool],
        known: Sequence[str],
        constraints: Sequence[str] = (),
    ) -> "Space":
        """A space from names and texts. Raises UsageError on an unknown name or a wrong text."""
        dimensions = []
        for name, form in mapping.items():
            if name not in known:
                raise UsageError(f"space: unknown dimension {name!r}{nearest(name, known)}")
            distribution, when = (
                parse_dimension(name, form) if isinstance(form, str) else (form, None)
            )
            dimensions.append(Dimension(name, distribution, is_static(name), when))
        return cls(tuple(dimensions), tuple(map(parse_rule, constraints)))

    def to_mapping(self) -> dict[str, str]:
        """Names and texts; `from_mapping` reads them back to an equal space."""
        return {
            d.name: str(d.distribution) if d.when is None else f"{d.distribution} if {d.when}"
            for d in self.dimensions
        }

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(d.name for d in self.dimensions)

    @property
    def static(self) -> tuple[str, ...]:
        """Names of the dimensions that change shapes."""
        return tuple(d.name for d in self.dimensions if d.static)

    @property
    def conditional(self) -> bool:
        """Whether some dimension exists in some points only."""
        return any(d.when is not None for d in self.dimensions)

    def build(self, value_of: Callable[[Dimension], Value]) -> Point:
        """The point whose existing dimensions have the values that `value_of` gives.

        Dimensions are asked for in an order in which those that decide come first.
        """
        point: dict[str, Value] = {}
        for d in self._order:
            if self.exists(d, point):
                point[d.name] = value_of(d)
        return {name: point[name] for name in self.names if name in point}

    def exists(self, dimension: Dimension, point: Point) -> bool:
        """Whether a dimension exists in a point that has the dimensions it depends on."""
        when = dimension.when
        return when is None or (when.known(point) and when.holds(point))

    def allows(self, point: Point) -> bool:
        """Whether a point keeps the constraints."""
        return all(not rule.known(point) or rule.holds(point) for rule in self.constraints)

    def decode(self, unit: Iterable[float]) -> Point:
        """f64[dimensions] in the unit cube -> point; values outside the cube are clipped.

        Constraints are not looked at.
        """
        units = dict(zip(self.names, map(float, unit), strict=True))
        return self.build(lambda d: d.distribution.decode(units[d.name]))

    def encode(self, point: Point) -> np.ndarray:
        """Point -> f64[dimensions] in the unit cube; `decode` gives the point back.

        A dimension that does not exist in the point is in the middle.
        """
        return np.array(
            [
                d.distribution.encode(point[d.name]) if d.name in point else 0.5
                for d in self.dimensions
            ]
        )

    def sample(self, rng: np.random.Generator) -> Point:
        """A random point. Raises UsageError where (nearly) no point keeps the constraints."""
        for _ in range(MOST_DRAWS):
            point = self.build(lambda d: d.distribution.sample(rng))
            if self.allows(point):
                return point
        rules = "; ".join(map(str, self.constraints))
        raise UsageError(f"constraints: none of {MOST_DRAWS} random points satisfies {rules}")

    def sample_new(self, rng: np.random.Generator, refused: Sequence[Point]) -> Point:
        """A random point that is none of the refused, unless there is (nearly) no other."""
        for _ in range(MOST_REFUSED):
            point = self.sample(rng)
            if point not in refused:
                return point
        return self.sample(rng)

    def sample_spread(self, rng: np.random.Generator, count: int) -> tuple[Point, ...]:
        """Latin hypercube: on every dimension, one point in each of `count` equal shares.

        Those that break a constraint are drawn anew. Source: McKay, Beckman and Conover 1979.
        """
        columns = [(rng.permutation(count) + rng.random(count)) / count for _ in self.dimensions]
        points = [self.decode(column[i] for column in columns) for i in range(count)]
        return tuple(point if self.allows(point) else self.sample(rng) for point in points)

    def corners(self) -> tuple[Point, ...]:
        """Points at the low and at the high bounds, as far as the constraints allow them."""
        count = len(self.dimensions)
        ends = [self.decode(np.full(count, unit)) for unit in (0.0, 1.0)]
        allowed = tuple(point for point in ends if self.allows(point))
        return allowed or (self.sample(np.random.default_rng(0)),)

    def check(self, point: Point) -> Point:
        """The point with plain Python values. Raises UsageError naming what is wrong with it."""
        for name in point:
            if name not in self.names:
                raise UsageError(f"point: unknown dimension {name!r}{nearest(name, self.names)}")
        checked = self.build(lambda d: _checked(d, point))
        for name in point:
            if name not in checked:
                when = self.dimensions[self.names.index(name)].when
                raise UsageError(f"point: {name!r} is there only if {when}")
        for rule in self.constraints:
            if rule.known(checked) and not rule.holds(checked):
                raise UsageError(f"point: {checked} breaks the constraint {rule}")
        return checked

    @functools.cached_property
    def _order(self) -> tuple[Dimension, ...]:
        """The dimensions, each after those that decide whether it exists."""
        ordered: dict[str, Dimension] = {}
        waiting = list(self.dimensions)
        while waiting:
            ready = [d for d in waiting if d.when is None or d.when.names <= ordered.keys()]
            if not ready:
                names = ", ".join(d.name for d in waiting)
                raise UsageError(f"space: {names} exist only if each other do")
            ordered |= {d.name: d for d in ready}
            waiting = [d for d in waiting if d.name not in ordered]
        return tuple(ordered.values())


def _choices(distribution: Distribution) -> tuple[Value, ...] | None:
    return distribution.values if isinstance(distribution, Choice) else None


def _when(dimension: Dimension, values: Mapping[str, tuple[Value, ...] | None]) -> Rule | None:
    if dimension.when is None:
        return None
    return _resolved(f"space {dimension.name}", dimension.when, values)


def _resolved(where: str, rule: Rule, values: Mapping[str, tuple[Value, ...] | None]) -> Rule:
    try:
        return rule.resolved(values)
    except UsageError as reason:
        raise UsageError(f"{where}: {reason}") from None


def _checked(dimension: Dimension, point: Point) -> Value:
    if dimension.name not in point:
        raise UsageError(f"point: no value for dimension {dimension.name!r}")
    value = point[dimension.name]
    if not dimension.distribution.contains(value):
        raise UsageError(f"point: {dimension.name}={value!r} is outside {dimension.distribution}")
    return dimension.distribution.clip(value)
