"""What is trained. The engine knows a task's three functions and nothing else."""

from dataclasses import dataclass, replace
from typing import Any, Protocol

import jax
import optax

from jaxhpo import nn, optimizers, schedules
from jaxhpo.nn.config import ModelConfig
from jaxhpo.optimizers.config import OptimizerConfig
from jaxhpo.population.hyperparams import Hyperparams

Params = Any
Batch = Any


class Task(Protocol):
    """Pure functions of arrays; `hyperparams` is any pytree of traced scalars.

    `init(key, hyperparams) -> params`; `loss(params, batch, hyperparams, key) -> f32[]`, where
    `key=None` asks for the evaluation loss (no dropout, no regularisation).
    `optimizer(hyperparams)` is an optax transformation whose state does not depend on the
    hyperparameters and whose `update` may take `step=i32[]`.
    `rate(hyperparams, step) -> f32[]` is the learning rate, for the record; `cooled(hyperparams,
    start, steps)` are hyperparameters whose rate falls to zero from `start`.
    """

    def init(self, key: jax.Array, hyperparams: Any) -> Params: ...

    def loss(
        self, params: Params, batch: Batch, hyperparams: Any, key: jax.Array | None
    ) -> jax.Array: ...

    def optimizer(self, hyperparams: Any) -> optax.GradientTransformation: ...

    def rate(self, hyperparams: Any, step: jax.Array) -> jax.Array: ...

    def cooled(self, hyperparams: Any, start: jax.Array, steps: jax.Array) -> Any: ...


@dataclass(frozen=True)
class LanguageModel:
    """A transformer on tokens; batches are {"tokens": i32[B, T + 1]}, if need be with a "mask"."""

    model: ModelConfig
    update_rule: OptimizerConfig
    unroll: bool | int = 1

    def init(self, key: jax.Array, hyperparams: Hyperparams) -> Params:
        del hyperparams
        return nn.init(self.model, key)

    def loss(
        self, params: Params, batch: Batch, hyperparams: Hyperparams, key: jax.Array | None
    ) -> jax.Array:
        return nn.loss(
            self.model,
            params,
            batch,
            dropout=hyperparams.dropout,
            terms=hyperparams.loss,
            key=key,
            unroll=self.unroll,
        )

    def optimizer(self, hyperparams: Hyperparams) -> optax.GradientTransformationExtraArgs:
        return optimizers.build(self.update_rule, hyperparams.optimizer, hyperparams.schedule)

    def rate(self, hyperparams: Hyperparams, step: jax.Array) -> jax.Array:
        return hyperparams.schedule(step)

    def cooled(self, hyperparams: Hyperparams, start: jax.Array, steps: jax.Array) -> Hyperparams:
        return replace(hyperparams, schedule=schedules.Cooled(hyperparams.schedule, start, steps))
