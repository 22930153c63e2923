"""The one form that all schedules lower to: a padded table of phases."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


def _hold(done, left):
    return jnp.zeros_like(left), jnp.ones_like(done)


def _linear(done, left):
    return left, done


def _cosine(done, left):
    # sin^2(x/2) is (1 - cos x)/2 without the cancellation that eats the last steps in float32
    return jnp.sin(jnp.pi / 2 * left) ** 2, jnp.sin(jnp.pi / 2 * done) ** 2


def _one_minus_sqrt(done, left):
    root = jnp.sqrt(done)
    return left / (1.0 + root), root


SHAPES = {"hold": _hold, "linear": _linear, "cosine": _cosine, "1-sqrt": _one_minus_sqrt}
"""Weights of a phase's first and last value, from the shares of the phase that are done and left.

Both shares and both weights are given, never one minus the other, to keep small rates' digits."""

_INDEX = {name: i for i, name in enumerate(SHAPES)}


class Phase(NamedTuple):
    """One stretch of a schedule: its shape (of SHAPES), length in steps, first and last value."""

    shape: str
    length: float
    begin: float
    end: float


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Schedule:
    """Learning rate as a function of the step: K phases in a row, then the last one's end for ever.

    Leaves are i32[K] (shape) and f32[K]; a population has [P, K]. An empty phase is skipped.
    An optax schedule: callable with an integer or float step, traced or not.
    """

    shape: jax.Array
    length: jax.Array
    begin: jax.Array
    end: jax.Array

    def __call__(self, step: jax.typing.ArrayLike) -> jax.Array:
        """Rate f32[] for update number `step`, counting from zero."""
        step = jnp.asarray(step, jnp.float32)
        ends = jnp.cumsum(jnp.asarray(self.length))
        now = jnp.minimum(jnp.sum(step >= ends), ends.shape[0] - 1)
        pick = lambda column: jnp.asarray(column)[now]
        share = lambda steps: jnp.clip(steps / jnp.maximum(pick(self.length), 1e-9), 0.0, 1.0)
        done, left = share(step - (pick(ends) - pick(self.length))), share(pick(ends) - step)
        # all shapes are computed and one picked: a few scalars cost less than a branch on a device
        weights = jnp.stack([jnp.stack(shape(done, left)) for shape in SHAPES.values()])
        first, last = weights[pick(self.shape)]
        return first * pick(self.begin) + last * pick(self.end)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Cooled:
    """A schedule that falls linearly to zero over `length` steps from `start`: the cool-down."""

    schedule: Schedule
    start: jax.Array
    length: jax.Array

    def __call__(self, step: jax.typing.ArrayLike) -> jax.Array:
        passed = jnp.asarray(step - self.start, jnp.float32)
        return self.schedule(step) * jnp.clip(1.0 - passed / jnp.maximum(self.length, 1), 0.0, 1.0)


def pack(phases: Sequence[Phase], size: int) -> Schedule:
    """The phases as numpy arrays [size], padded with empty phases. ValueError if there are more."""
    if len(phases) > size:
        raise ValueError(f"{len(phases)} phases do not fit a table of {size}")
    last = phases[-1].end
    rows = [*phases, *[Phase("hold", 0.0, last, last)] * (size - len(phases))]
    column = lambda i: np.array([row[i] for row in rows], np.float32)
    shapes = np.array([_INDEX[row.shape] for row in rows], np.int32)
    return Schedule(shapes, column(1), column(2), column(3))
