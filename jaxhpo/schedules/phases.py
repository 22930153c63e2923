"""The one form that all schedules lower to: a padded table of phases."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxhpo.errors import UsageError
from jaxhpo.schedules.shapes import SHAPES, Progress

SIZES = (4, 16, 64)
"""Rows that a table may have; few, for each is a program of its own."""

FOREVER = 2.0**31
"""A length that no int32 counter of steps reaches."""

_INDEX = {name: i for i, name in enumerate(SHAPES)}

Numeric = float | jax.Array


class Phase(NamedTuple):
    """One stretch: its shape (of SHAPES), length in steps, first and last value, and its bend."""

    shape: str
    length: Numeric
    begin: Numeric
    end: Numeric
    bend: Numeric = 1.0


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Schedule:
    """Learning rate as a function of the step: K phases in a row, then the last one's end for ever.

    Leaves are i32[K] (shape) and f32[K]; a population has [P, K]. An empty phase is skipped.
    An optax schedule: callable with an integer or float step, traced or not. Two are equal only if
    they are the same object, so that one may be given to jax.jit: its arrays have no hash.
    """

    shape: jax.Array
    start: jax.Array
    length: jax.Array
    begin: jax.Array
    end: jax.Array
    bend: jax.Array

    def __call__(self, step: jax.typing.ArrayLike) -> jax.Array:
        """Rate f32[...] for updates number `step` [...], counting from zero."""
        step = jnp.asarray(step, jnp.float32)
        now = jnp.sum(step[..., None] >= self.start, -1) - 1
        shape, start, length, begin, end, bend = (
            _row(jnp.asarray(getattr(self, field.name)), jnp.maximum(now, 0))
            for field in fields(self)
        )
        passed = jnp.clip(step - start, 0.0, length)
        # an empty phase is over before it began
        done = jnp.where(length > 0, passed / jnp.maximum(length, 1e-9), 1.0)
        left = jnp.clip((start + length - step) / jnp.maximum(length, 1e-9), 0.0, 1.0)
        at = Progress(done, left, passed)
        # all shapes are computed and one picked: a few scalars cost less than a branch on a device
        rates = [rate(at, begin, end, bend) for rate in SHAPES.values()]
        return jax.lax.select_n(shape, *rates)

    def padded(self, size: int) -> "Schedule":
        """The same schedule with `size` rows. Raises UsageError if it has more."""
        rows = np.shape(self.start)[-1]
        if rows > size:
            raise UsageError(f"phases: {rows} rows do not fit a table of {size}")
        if rows == size:
            return self
        order = np.minimum(np.arange(size), rows - 1)
        return jax.tree.map(lambda column: column[..., order], self)


def _row(column: jax.Array, now: jax.Array) -> jax.Array:
    if column.ndim == 1:
        return column[now]
    return jnp.take_along_axis(column, now[..., None], -1)[..., 0]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Cooled:
    """A schedule that falls linearly to zero over `length` steps from `start`: the cool-down."""

    schedule: Schedule
    start: jax.Array
    length: jax.Array

    def __call__(self, step: jax.typing.ArrayLike) -> jax.Array:
        passed = jnp.asarray(step - self.start, jnp.float32)
        return self.schedule(step) * jnp.clip(1.0 - passed / jnp.maximum(self.length, 1), 0.0, 1.0)


def pack(phases: Sequence[Phase], size: int | None = None) -> Schedule:
    """The phases in a table of `size` rows (default: the smallest of SIZES), the last one repeated.

    numpy arrays where all values are plain numbers, else JAX's. Raises UsageError if they are more.
    """
    fitting = [each for each in SIZES if each >= len(phases)] if size is None else [size]
    if not fitting:
        raise UsageError(f"phases: {len(phases)} are too many; allowed: {SIZES[-1]}")
    starts: list[Numeric] = [0.0]
    for phase in phases[:-1]:
        starts.append(starts[-1] + phase.length)
    columns = ([row[i] for row in phases] for i in range(1, 5))
    length, begin, end, bend = map(_column, columns)
    shape = np.array([_INDEX[row.shape] for row in phases], np.int32)
    return Schedule(shape, _column(starts), length, begin, end, bend).padded(fitting[0])


def _column(values: Sequence[Numeric]) -> jax.Array | np.ndarray:
    if any(isinstance(value, jax.Array) for value in values):
        return jnp.stack([jnp.asarray(value, jnp.float32) for value in values])
    return np.array(values, np.float32)
