"""A task made of a user's own functions: any model, any loss."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxhpo.errors import UsageError
from jaxhpo.population.task import Batch, Params

Values = Mapping[str, jax.Array]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Named:
    """Hyperparameters f32[] by name; `cooling` is start and length of a probe's cool-down."""

    values: dict[str, Any]
    cooling: tuple[Any, Any] | None = None


@dataclass(frozen=True)
class FunctionTask:
    """`init(key)`, `loss(params, batch, hyperparams, key)` and `optimizer(hyperparams)`.

    Hyperparameters are a mapping from name to f32[]. `rate` is the learning rate, for the record
    (default: the value named lr or learning_rate). A cool-down scales the updates down to zero,
    which for decoupled rules is what scaling the learning rate does.
    """

    initialise: Callable[[jax.Array], Params]
    objective: Callable[[Params, Batch, Values, jax.Array | None], jax.Array]
    update_rule: Callable[[Values], optax.GradientTransformation]
    learning_rate: Callable[[Values, jax.Array], jax.Array] | None = None

    def init(self, key: jax.Array, hyperparams: Named) -> Params:
        del hyperparams
        return self.initialise(key)

    def loss(
        self, params: Params, batch: Batch, hyperparams: Named, key: jax.Array | None
    ) -> jax.Array:
        return self.objective(params, batch, hyperparams.values, key)

    def optimizer(self, hyperparams: Named) -> optax.GradientTransformationExtraArgs:
        rule = optax.with_extra_args_support(self.update_rule(hyperparams.values))

        def update(grads: Any, state: Any, params: Any = None, *, step: jax.Array, **extra: Any):
            updates, state = rule.update(grads, state, params, **extra)
            factor = _left(hyperparams, step)
            return jax.tree.map(lambda x: (x * factor).astype(x.dtype), updates), state

        return optax.GradientTransformationExtraArgs(rule.init, update)

    def rate(self, hyperparams: Named, step: jax.Array) -> jax.Array:
        values = hyperparams.values
        if self.learning_rate is not None:
            rate = self.learning_rate(values, step)
        else:
            rate = values.get("lr", values.get("learning_rate", jnp.nan))
        return jnp.asarray(rate * _left(hyperparams, step), jnp.float32)

    def cooled(self, hyperparams: Named, start: jax.Array, steps: jax.Array) -> Named:
        return replace(hyperparams, cooling=(start, steps))


def _left(hyperparams: Named, step: jax.Array) -> jax.Array | float:
    """Share of the update that a cool-down leaves at a step: from one, linearly to zero."""
    if hyperparams.cooling is None:
        return 1.0
    start, steps = hyperparams.cooling
    return jnp.clip(1.0 - (step - start) / jnp.maximum(steps, 1), 0.0, 1.0)


def lower_named(names: Sequence[str], points: Sequence[Mapping[str, Any]]) -> Named:
    """Points as rows f32[P]; what a point leaves out is zero. UsageError where it is no number."""
    rows = {name: [point.get(name, 0.0) for point in points] for name in names}
    for name, values in rows.items():
        for value in values:
            if isinstance(value, str):
                raise UsageError(f"space: {name}={value!r} is no number; a function takes numbers")
    return Named({name: np.asarray(values, np.float32) for name, values in rows.items()})
