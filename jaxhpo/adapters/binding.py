"""An adapter at work: what the transformer consults while it runs its blocks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxhpo.adapters.arrays import each_target, stream
from jaxhpo.adapters.changes import CHANGES, Call, Kernel
from jaxhpo.adapters.config import AdapterConfig
from jaxhpo.adapters.hyperparams import AdapterHyperparams
from jaxhpo.adapters.storage import Base
from jaxhpo.nn.config import ModelConfig

Array = jax.Array

TINY = 1e-30
"""Added under a root, whose slope at zero is infinite."""


@dataclass
class Bound:
    """The arrays of one adapter with their numbers, for one pass; `jaxhpo.nn.Adapter`.

    `rows` is scanned with the blocks. What is noted of the pass is there when it has run.
    """

    config: AdapterConfig
    hyperparams: AdapterHyperparams
    arrays: dict[str, dict[str, Array]]
    scales: Mapping[str, Array]
    keys: Array | None
    noted: dict[str, dict[str, Array]] = field(default_factory=dict)

    @property
    def rows(self) -> Any:
        return self.arrays, dict(self.scales), self.keys

    def attach(self, block: Any, row: Any) -> Callable[[], dict[str, dict[str, Array]]]:
        """Puts the adapter's projections into one block; what comes back tells what they noted."""
        arrays, scales, key = row
        notes: dict[str, dict[str, Array]] = {}
        for path in sorted({*arrays, *scales}):
            part, name = path.split("/")
            layer = getattr(block, part)
            adapted = _Projection(
                self,
                path,
                getattr(layer, name),
                arrays.get(path),
                scales.get(path),
                None if key is None else jax.random.fold_in(key, stream(path)),
                notes,
            )
            setattr(layer, name, adapted)
        return lambda: notes

    def note(self, found: dict[str, dict[str, Array]]) -> None:
        """Takes what the layers noted, every leaf with a leading [L]."""
        self.noted = found

    def penalty(self) -> Array:
        """The term f32[] that the adapter adds to the training loss, after the pass."""
        if self.config.kind == "adalora":
            return self.hyperparams.of("orthogonality") * orthogonality(
                self.config, self.hyperparams, self.arrays
            )
        terms = [noted["balance"].sum() for noted in self.noted.values() if "balance" in noted]
        if not terms:
            return jnp.float32(0)
        return self.hyperparams.of("balance") * sum(terms)

    def measured(self) -> dict[str, Array]:
        """Experts f32[] that a token uses on average, by `experts/TARGET/LAYER`."""
        return {
            f"experts/{path}/{layer}": noted["experts"][layer]
            for path, noted in self.noted.items()
            if "experts" in noted
            for layer in range(noted["experts"].shape[0])
        }


def bind(
    config: AdapterConfig,
    model: ModelConfig,
    base: Base,
    params: Mapping[str, Any],
    hyperparams: AdapterHyperparams,
    key: Array | None = None,
) -> tuple[dict[str, Any], Bound]:
    """The model's parameters with the adapter among them, and the adapter: for `nn.apply`.

    Without a key nothing is dropped.
    """
    keys = None
    if key is not None and hyperparams.dropout is not None:
        keys = jax.random.split(key, model.num_layers)
    bound = Bound(config, hyperparams, dict(each_target(params)), base["scales"], keys)
    return {**base["params"], "adapter": bound}, bound


class _Projection:
    """A frozen projection and the change to it; called in its place."""

    def __init__(
        self,
        bound: Bound,
        path: str,
        linear: nnx.Linear,
        arrays: dict[str, Array] | None,
        scale: Array | None,
        key: Array | None,
        notes: dict[str, dict[str, Array]],
    ) -> None:
        self.bound, self.path, self.arrays, self.key = bound, path, arrays, key
        self.kernel = Kernel(linear.kernel[...], scale)
        self.bias = None if linear.bias is None else linear.bias[...]
        self.dtype, self.notes = linear.dtype, notes

    def __call__(self, x: Array) -> Array:
        x = x.astype(self.dtype)
        y = self.kernel.product(x)
        if self.arrays is not None:
            bound = self.bound
            on = bound.hyperparams.on.get(self.path)
            call = Call(x, self.kernel, y, on, self.key)
            change, noted = CHANGES[bound.config.kind](
                bound.config, bound.hyperparams, self.arrays, call
            )
            if noted:
                self.notes[self.path] = noted
            y = y + change
        return y if self.bias is None else y + self.bias.astype(y.dtype)


def orthogonality(
    config: AdapterConfig, hyperparams: AdapterHyperparams, arrays: dict[str, dict[str, Array]]
) -> Array:
    """Mean over all P and Q of |P^T P - I| and |Q Q^T - I|, f32[]: Frobenius, not squared.

    As AdaLoRA's authors and PEFT compute it; the paper squares. Those switched off don't count.
    """
    unit = jnp.diag(hyperparams.mask(config.width).astype(jnp.float32))
    total, count = jnp.float32(0), jnp.float32(0)
    for path, own in arrays.items():
        a, b = own["lora_a"], own["lora_b"]
        sides = jnp.einsum("lir,lis->lrs", a, a), jnp.einsum("lro,lso->lrs", b, b)
        on = hyperparams.on.get(path, jnp.float32(1))
        for side in sides:
            norms = jnp.sqrt(jnp.sum(jnp.square(side - unit), (-2, -1)) + TINY)
            total, count = total + on * norms.sum(), count + on * norms.shape[0]
    return total / jnp.maximum(count, 1.0)
