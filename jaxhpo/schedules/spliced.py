"""Schedules that take turns, such as those that a population's winner followed."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jaxhpo.errors import UsageError
from jaxhpo.schedules.phases import Schedule


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Spliced:
    """From each of `starts` on the schedule of that row holds; all count steps from zero.

    Leaves are f32[R] and the Schedule's [R, K]. An optax schedule.
    """

    starts: jax.Array
    schedules: Schedule

    def __call__(self, step: jax.typing.ArrayLike) -> jax.Array:
        """Rate f32[...] for updates number `step` [...], counting from zero."""
        step = jnp.asarray(step, jnp.float32)
        now = jnp.maximum(jnp.sum(step[..., None] >= self.starts, -1) - 1, 0)
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[now], self.schedules)(step)


def splice(rows: Sequence[tuple[int, Schedule]]) -> Spliced:
    """One schedule from `(step from which it holds, schedule)` rows, the first at step zero.

    Raises UsageError where the steps do not begin at zero or do not grow.
    """
    starts = [start for start, _ in rows]
    if not rows or starts[0] != 0 or sorted(set(starts)) != starts:
        raise UsageError(f"splice: schedules begin at steps {starts}; allowed: 0 first, then later")
    size = max(len(schedule.start) for _, schedule in rows)
    tables = [schedule.padded(size) for _, schedule in rows]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *tables)
    return Spliced(np.array(starts, np.float32), stacked)
