"""A base and its adapter as one model's weights, for export."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxhpo.adapters.arrays import Arrays, each_target, put, take
from jaxhpo.adapters.changes import Kernel, changed_squares, gain
from jaxhpo.adapters.config import AdapterConfig
from jaxhpo.adapters.hyperparams import AdapterHyperparams
from jaxhpo.errors import UsageError

Array = jax.Array


def merge(
    config: AdapterConfig, base: Any, params: Mapping[str, Any], hyperparams: AdapterHyperparams
) -> dict[str, Any]:
    """The model's parameters `base` with the change of the adapter added to its kernels.

    `hyperparams` is one trial's row. The result's logits are the adapter's to float tolerance.
    Raises UsageError for AdaMoLE, whose change depends on the input.
    """
    if config.kind == "adamole":
        raise UsageError(
            "adapter.kind=adamole can't be merged: its experts are chosen by the input; "
            "keep base and adapter"
        )
    merged = _copied(base)
    for path, arrays in each_target(params):
        linear = take(merged["blocks"], path)
        on = hyperparams.on.get(path)
        change = lambda kernel, arrays, on=on: _merged(config, hyperparams, kernel, arrays, on)
        kernel = jnp.asarray(linear["kernel"])
        new = jax.vmap(change)(kernel.astype(jnp.float32), dict(arrays))
        put(merged["blocks"], f"{path}/kernel", new.astype(kernel.dtype))
    return merged


def _merged(
    config: AdapterConfig,
    hyperparams: AdapterHyperparams,
    kernel: Array,
    arrays: Arrays,
    on: Array | None,
) -> Array:
    """The weight f32[I, O] of one layer."""
    gains = gain(config, hyperparams, on)
    values = arrays["lora_e"] if config.kind == "adalora" else 1.0
    whole = kernel + (arrays["lora_a"] * gains * values) @ arrays["lora_b"]
    if config.kind != "dora":
        return whole
    norm = jnp.sqrt(changed_squares(Kernel(kernel, None), arrays, gains))
    ratio = arrays["magnitude"] / norm
    return whole * (ratio if on is None else jnp.where(on > 0, ratio, 1.0))


def _copied(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The nested dict anew; its arrays are the same ones."""
    return {
        name: _copied(value) if isinstance(value, Mapping) else value
        for name, value in tree.items()
    }
