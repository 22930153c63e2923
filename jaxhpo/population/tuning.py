"""Tasks that start from a model that exists: adapters over a frozen base, or all its weights."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import jax
import optax

from jaxhpo import adapters, optimizers
from jaxhpo.adapters.config import AdapterConfig
from jaxhpo.adapters.storage import Base
from jaxhpo.nn.config import ModelConfig
from jaxhpo.optimizers.clipping import clipping
from jaxhpo.optimizers.config import OptimizerConfig
from jaxhpo.population.hyperparams import Hyperparams
from jaxhpo.population.task import Batch, Params, Task


class Inner(Task, Protocol):
    """The task that is tuned: `LanguageModel`, or one with more parameters than the model's.

    `extra(key) -> dict` may give parameters that stand beside the model's, such as a head: they are
    trained whatever happens to the model.
    """

    @property
    def model(self) -> ModelConfig: ...

    @property
    def update_rule(self) -> OptimizerConfig: ...


@dataclass(frozen=True)
class AdapterTuning:
    """Adapters over a frozen base that all members share: the engine's `shared`, from
    `adapters.store`.

    A member's parameters are the adapter's arrays and what `task.extra` gives. Batches, loss and
    rate are those of `task`; to the training loss comes the adapter's own term, and to what is
    recorded AdaLoRA's `rank/TARGET/LAYER` or AdaMoLE's `experts/TARGET/LAYER`. Raises UsageError
    for a target or a decay rule that matches nothing.
    """

    task: Inner
    adapter: AdapterConfig
    base: Base | None = None

    def __post_init__(self) -> None:
        adapters.targets_of(self.adapter, self.task.model)
        optimizers.decay_shares(
            self.task.update_rule, adapters.tensors(self.adapter, self.task.model)
        )

    def over(self, shared: Base) -> "AdapterTuning":
        return replace(self, base=shared)

    def init(self, key: jax.Array, hyperparams: Hyperparams) -> Params:
        own = adapters.init(self.adapter, self.task.model, key, _numbers(hyperparams), self.base)
        return {**own, **_extra(self.task, key)}

    def loss(
        self, params: Params, batch: Batch, hyperparams: Hyperparams, key: jax.Array | None
    ) -> jax.Array:
        return self.observed(params, batch, hyperparams, key)[0]

    def observed(
        self, params: Params, batch: Batch, hyperparams: Hyperparams, key: jax.Array | None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        whole, bound = self.whole(params, hyperparams, key)
        found = self.task.loss(whole, batch, hyperparams, key)
        if key is None:
            return found, {}
        return found + bound.penalty(), bound.measured()

    @property
    def examine(self) -> Callable[[Params, Batch, Hyperparams], Any] | None:
        """What the task examines, where it does."""
        inner = getattr(self.task, "examine", None)
        if inner is None:
            return None
        return lambda params, batch, hyperparams: inner(
            self.whole(params, hyperparams)[0], batch, hyperparams
        )

    def whole(
        self, params: Params, hyperparams: Hyperparams, key: jax.Array | None = None
    ) -> tuple[Params, Any]:
        """Parameters for `nn.apply`: the base, what is trained beside it, and the adapter at work;
        and the adapter, which can tell what it noted when the pass is over."""
        if self.base is None:
            raise ValueError("the base is missing; give the engine `shared`, or call `over`")
        own_key = None if key is None else jax.random.fold_in(key, ADAPTER)
        whole, bound = adapters.bind(
            self.adapter, self.task.model, self.base, params, _numbers(hyperparams), own_key
        )
        return {**whole, **{k: v for k, v in params.items() if k != "blocks"}}, bound

    def optimizer(self, hyperparams: Hyperparams) -> optax.GradientTransformationExtraArgs:
        rule = self.task.optimizer(hyperparams)
        if self.adapter.kind != "adalora":
            return optax.with_extra_args_support(rule)
        clip = optax.chain(optax.identity(), *clipping(hyperparams.optimizer))
        return adapters.allocate(rule, self.adapter, _numbers(hyperparams), clip)

    def rate(self, hyperparams: Hyperparams, step: jax.Array) -> jax.Array:
        return self.task.rate(hyperparams, step)

    def measure(
        self, hyperparams: Hyperparams, before: Any, grads: Any, updates: Any, moments: Any
    ) -> dict[str, jax.Array]:
        measure = getattr(self.task, "measure", None)
        found = {} if measure is None else measure(hyperparams, before, grads, updates, moments)
        if self.adapter.kind == "adalora":
            found = found | adapters.ranks(_numbers(hyperparams), moments)
        return found

    def cooled(self, hyperparams: Hyperparams, start: jax.Array, steps: jax.Array) -> Hyperparams:
        return self.task.cooled(hyperparams, start, steps)


ADAPTER = 0x0ADA
"""Stream of a step's key that the adapter draws from; the model draws from the key itself."""


@dataclass(frozen=True)
class FullTuning:
    """All weights of `task`, which start from the engine's `shared`: the model's parameters."""

    task: Inner
    start: Params | None = None

    def over(self, shared: Params) -> "FullTuning":
        return replace(self, start=shared)

    def init(self, key: jax.Array, hyperparams: Hyperparams) -> Params:
        del hyperparams
        if self.start is None:
            raise ValueError("there are no weights to start from; give the engine `shared`")
        return {**self.start, **_extra(self.task, key)}

    def __getattr__(self, name: str) -> Any:
        # all else is the task's own; what it lacks, this lacks too
        if name in ("task", "start"):
            raise AttributeError(name)
        return getattr(self.task, name)


def _extra(task: Inner, key: jax.Array) -> Params:
    extra = getattr(task, "extra", None)
    return {} if extra is None else extra(key)


def _numbers(hyperparams: Hyperparams) -> adapters.AdapterHyperparams:
    if hyperparams.adapter is None:
        raise ValueError("the hyperparameters have none of an adapter; give the config one")
    return hyperparams.adapter
