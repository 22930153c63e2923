"""Distributions of one dimension: to and from the unit interval, and how each is perturbed.

Every value that leaves here is a plain float, int or str inside the bounds. `scaled` moves a value
the way PBT perturbs it, by a factor above one (up) or below one (down), and clips the result.
"""

import math
import numbers
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Protocol, TypeGuard

import numpy as np

from jaxhpo.errors import UsageError
from jaxhpo.search.plan import Value
from jaxhpo.search.values import print_value, read_value

LARGEST_INT = 2**31 - 1  # values are lowered to i32


class Distribution(Protocol):
    """`str` of a distribution is the text that `parse` reads back to an equal one."""

    def decode(self, unit: float) -> Value: ...

    def encode(self, value: Value) -> float: ...

    def contains(self, value: Value) -> bool: ...

    def clip(self, value: Value) -> Value: ...

    def sample(self, rng: np.random.Generator) -> Value: ...

    def scaled(self, value: Value, factor: float) -> Value: ...


class _Sampled:
    """Draws by decoding a uniform number, so the distribution is stated once, in `decode`."""

    def decode(self, unit: float) -> Any:
        raise NotImplementedError

    def sample(self, rng: np.random.Generator) -> Any:
        return self.decode(rng.random())


@dataclass(frozen=True)
class Uniform(_Sampled):
    """A float, uniform between the bounds (both included)."""

    low: float
    high: float

    def __post_init__(self) -> None:
        _check_bounds(self)
        if not math.isfinite(self.high - self.low):
            raise UsageError("the range from low to high is not a finite number")

    def __str__(self) -> str:
        return f"uniform({float(self.low)!r}, {float(self.high)!r})"

    def decode(self, unit: float) -> float:
        return self.clip(self.low + (self.high - self.low) * unit)

    def encode(self, value: Value) -> float:
        return (float(value) - self.low) / (self.high - self.low)

    def contains(self, value: Value) -> bool:
        return _is_number(value) and self.low <= value <= self.high

    def clip(self, value: Value) -> float:
        return float(min(max(float(value), self.low), self.high))

    def scaled(self, value: Value, factor: float) -> float:
        """Moved by as much as the factor would move the middle of the range: 1.2 is a tenth of it.

        A product would leave zero where it is, and a rate of zero must be able to come back.
        """
        return self.decode(self.encode(value) + (factor - 1) / 2)


@dataclass(frozen=True)
class Log(_Sampled):
    """A positive float whose logarithm is uniform between the bounds (both included)."""

    low: float
    high: float

    def __post_init__(self) -> None:
        _check_bounds(self)
        if self.low <= 0:
            raise UsageError(f"low={self.low!r} must be above zero on a log scale")
        if not math.log(self.low) < math.log(self.high):
            raise UsageError("low and high are too close to tell their logarithms apart")

    def __str__(self) -> str:
        return f"log({float(self.low)!r}, {float(self.high)!r})"

    def decode(self, unit: float) -> float:
        low, high = math.log(self.low), math.log(self.high)
        return self.clip(math.exp(low + (high - low) * min(max(unit, 0.0), 1.0)))

    def encode(self, value: Value) -> float:
        low, high = math.log(self.low), math.log(self.high)
        return (math.log(float(value)) - low) / (high - low)

    def contains(self, value: Value) -> bool:
        return _is_number(value) and self.low <= value <= self.high

    def clip(self, value: Value) -> float:
        return float(min(max(float(value), self.low), self.high))

    def scaled(self, value: Value, factor: float) -> float:
        return self.clip(float(value) * factor)


@dataclass(frozen=True)
class Integer(_Sampled):
    """A whole number, uniform from low to high (both included)."""

    low: int
    high: int

    def __post_init__(self) -> None:
        for name, bound in (("low", self.low), ("high", self.high)):
            if not _is_whole(bound):
                raise UsageError(f"{name}={bound!r} is not a whole number")
            if abs(bound) > LARGEST_INT:
                raise UsageError(f"{name}={bound!r} is beyond {LARGEST_INT}")
        _check_bounds(self)

    def __str__(self) -> str:
        return f"int({self.low}, {self.high})"

    def decode(self, unit: float) -> int:
        return self.low + _bin(unit, self.high - self.low + 1)

    def encode(self, value: Value) -> float:
        return (int(value) - self.low + 0.5) / (self.high - self.low + 1)

    def contains(self, value: Value) -> bool:
        return _is_whole(value) and self.low <= value <= self.high

    def clip(self, value: Value) -> int:
        return min(max(round(float(value)), self.low), self.high)

    def scaled(self, value: Value, factor: float) -> int:
        """Rounded, and moved by at least one unless a bound is in the way."""
        value = int(value)
        moved = round(value * factor)
        return self.clip(moved if moved != value else value + (1 if factor > 1 else -1))


@dataclass(frozen=True)
class LogInteger(Integer):
    """A positive whole number whose logarithm is uniform from low to high (both included)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low < 1:
            raise UsageError(f"low={self.low!r} must be above zero on a log scale")

    def __str__(self) -> str:
        return f"logint({self.low}, {self.high})"

    def decode(self, unit: float) -> int:
        low, high = self._logs
        return self.clip(math.exp(low + (high - low) * min(max(unit, 0.0), 1.0)))

    def encode(self, value: Value) -> float:
        low, high = self._logs
        return (math.log(float(value)) - low) / (high - low)

    @property
    def _logs(self) -> tuple[float, float]:
        # half a number more on both sides: the bounds get bins as whole as the others
        return math.log(self.low - 0.5), math.log(self.high + 0.5)


CUT = 4.0
"""Deviations at which a normal distribution is cut off."""


@dataclass(frozen=True)
class Normal(_Sampled):
    """A normally distributed float, cut at four deviations, and at low and high where given."""

    mean: float
    deviation: float
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        for name in ("mean", "deviation", "low", "high"):
            value = getattr(self, name)
            if not _is_number(value) and not (value is None and name in ("low", "high")):
                raise UsageError(f"{name}={value!r} is not a finite number")
        if self.deviation <= 0:
            raise UsageError(f"deviation={self.deviation!r} must be above zero")
        low, high = self._bounds
        if not (low < high and math.isfinite(low) and math.isfinite(high)):
            raise UsageError(f"nothing lies between low={low!r} and high={high!r}")
        if not self._share(low) < self._share(high):
            raise UsageError(f"low={low!r} and high={high!r} are too close to tell apart")

    def __str__(self) -> str:
        parts = [self.mean, self.deviation]
        if self.low is not None or self.high is not None:
            given = zip((self.low, self.high), self._bounds, strict=True)
            parts += [bound if end is None else end for end, bound in given]
        return f"normal({', '.join(repr(float(part)) for part in parts)})"

    def decode(self, unit: float) -> float:
        low, high = (self._share(bound) for bound in self._bounds)
        share = low + (high - low) * min(max(unit, 0.0), 1.0)
        return self.clip(self.mean + self.deviation * NormalDist().inv_cdf(share))

    def encode(self, value: Value) -> float:
        low, high = (self._share(bound) for bound in self._bounds)
        return (self._share(float(value)) - low) / (high - low)

    def contains(self, value: Value) -> bool:
        low, high = self._bounds
        return _is_number(value) and low <= value <= high

    def clip(self, value: Value) -> float:
        low, high = self._bounds
        return float(min(max(float(value), low), high))

    def scaled(self, value: Value, factor: float) -> float:
        """Moved by as much as the factor would move the middle of the unit interval."""
        return self.decode(self.encode(value) + (factor - 1) / 2)

    @property
    def _bounds(self) -> tuple[float, float]:
        low, high = self.mean - CUT * self.deviation, self.mean + CUT * self.deviation
        return (
            float(low if self.low is None else max(low, self.low)),
            float(high if self.high is None else min(high, self.high)),
        )

    def _share(self, value: float) -> float:
        return NormalDist().cdf((value - self.mean) / self.deviation)


@dataclass(frozen=True)
class Choice(_Sampled):
    """One of the values, all equally likely; neighbours in the list are neighbours to a search."""

    values: tuple[Value, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise UsageError("a choice needs at least one value")
        for value in self.values:
            if isinstance(value, bool) or read_value(print_value(value)) != value:
                raise UsageError(f"{value!r} is neither a finite number nor a plain word")
        if len(set(self.values)) < len(self.values):
            raise UsageError("a value is given twice")

    def __str__(self) -> str:
        return f"choice({', '.join(map(print_value, self.values))})"

    def decode(self, unit: float) -> Value:
        return self.values[_bin(unit, len(self.values))]

    def encode(self, value: Value) -> float:
        return (self.values.index(value) + 0.5) / len(self.values)

    def contains(self, value: Value) -> bool:
        return not isinstance(value, bool) and value in self.values

    def clip(self, value: Value) -> Value:
        """The value as it is listed (1.0 may be listed as 1). Raises ValueError if it is not."""
        return self.values[self.values.index(value)]

    def scaled(self, value: Value, factor: float) -> Value:
        """The next value in the list, or the one before."""
        index = self.values.index(value) + (1 if factor > 1 else -1)
        return self.values[min(max(index, 0), len(self.values) - 1)]


def _check_bounds(bounds: Uniform | Log | Integer) -> None:
    for name, bound in (("low", bounds.low), ("high", bounds.high)):
        if not _is_number(bound):
            raise UsageError(f"{name}={bound!r} is not a finite number")
    if not bounds.low < bounds.high:
        raise UsageError(f"low={bounds.low!r} must be below high={bounds.high!r}")


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _bin(unit: float, bins: int) -> int:
    return min(max(math.floor(unit * bins), 0), bins - 1)
