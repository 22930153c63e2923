"""A schedule on a clock of its own."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Shifted:
    """The rate of `schedule` at `step - by`: a schedule that began `by` steps late. An optax
    schedule; `by` is i32[], and negative where it began early."""

    schedule: Any
    by: jax.Array

    def __call__(self, step: jax.typing.ArrayLike) -> jax.Array:
        """Rate f32[] for update number `step`, counting from zero."""
        return self.schedule(jnp.asarray(step) - self.by)
