"""What is trained. The engine knows a task's three functions and nothing else."""

from dataclasses import dataclass, replace
from typing import Any, Protocol

import jax
import jax.numpy as jnp
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
    A task may also have `measure(hyperparams, before, grads, updates, moments) -> {name: f32[]}`,
    which is recorded of every step; `before` is the member as it was. What it leaves out at a step
    is NaN.
    `observed(params, batch, hyperparams, key) -> (loss, {name: f32[]})` may stand in for `loss` in
    training steps: numbers of the forward pass that are recorded too.
    `examine(params, batch, hyperparams) -> {name: f32[...]}` may stand in for the evaluation loss:
    a "loss" f32[] and what else is wanted of held-out batches, such as "predictions" f32[B].
    `over(shared) -> Task` is asked for where the engine has something that all members share.
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
    """A transformer on tokens; batches are {"tokens": i32[B, T + 1]}, if need be with a "mask".

    Raises UsageError for a decay rule that fits no parameter or overlaps another.
    """

    model: ModelConfig
    update_rule: OptimizerConfig
    unroll: bool | int = 1
    diagnose_every: int = 0

    def __post_init__(self) -> None:
        if self.model.vocab_size is not None:
            optimizers.decay_shares(self.update_rule, nn.tensors(self.model))

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

    def measure(
        self, hyperparams: Hyperparams, before: Any, grads: Any, updates: Any, moments: Any
    ) -> dict[str, jax.Array]:
        """`clipped/...` of every step, and the optimizers' diagnostics of every
        `diagnose_every`-th step, counted from zero (none where it is 0).

        In chunks of several members every step is computed and the others are dropped: vmap turns
        the branch into a choice.
        """
        numbers = hyperparams.optimizer
        shares = optimizers.clipped(numbers, grads)
        if not self.diagnose_every:
            return shares

        def diagnose() -> dict[str, jax.Array]:
            rate = self.rate(hyperparams, before.step)
            return optimizers.diagnose(numbers, grads, updates, before.params, moments, rate)

        absent = jax.tree.map(lambda x: jnp.full(x.shape, jnp.nan), jax.eval_shape(diagnose))
        due = before.step % self.diagnose_every == 0
        return shares | jax.lax.cond(due, diagnose, lambda: absent)

    def cooled(self, hyperparams: Hyperparams, start: jax.Array, steps: jax.Array) -> Hyperparams:
        return replace(hyperparams, schedule=schedules.Cooled(hyperparams.schedule, start, steps))
