"""How the frozen base is stored: as it is, in bfloat16, or as eight-bit integers with scales."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxhpo import nn
from jaxhpo.adapters.config import BaseDtype
from jaxhpo.nn.config import ModelConfig

Array = jax.Array
Base = dict[str, Any]
"""{"params": the model's tree, "scales": {projection: f32[L, O]}}, the latter of int8 kernels."""

LEVELS = 127
"""Largest integer of a quantised weight; -128 is not used, so that scales are symmetric."""


def store(params: Any, dtype: BaseDtype = "float32") -> Base:
    """The base as it is kept on the device, shared by all members.

    bfloat16 rounds all but gains and offsets of norms: a relative error of 2^-8 at most. int8
    rounds the projections of the blocks to multiples of (largest of the column) / 127: an error of
    half of that at most in each weight; embeddings and read-out are bfloat16 then. Products, and
    all that is trained, stay as the model's config says.
    """
    if dtype == "float32":
        return {"params": params, "scales": {}}
    scales: dict[str, Array] = {}

    def leaf(path: tuple[Any, ...], x: Array) -> Array:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if "norm" in name or name.endswith("bias"):
            return x
        if dtype == "int8" and name.startswith("blocks/") and name.endswith("/kernel"):
            quantised, scale = quantise(x)
            scales[name.removeprefix("blocks/").removesuffix("/kernel")] = scale
            return quantised
        return jnp.asarray(x, jnp.bfloat16)

    return {"params": jax.tree_util.tree_map_with_path(leaf, params), "scales": scales}


def quantise(kernel: Array) -> tuple[Array, Array]:
    """f[..., I, O] as i8[..., I, O] and the scale f32[..., O] of each output."""
    kernel = jnp.asarray(kernel, jnp.float32)
    scale = jnp.max(jnp.abs(kernel), -2) / LEVELS
    steps = jnp.round(kernel / jnp.where(scale > 0, scale, 1.0)[..., None, :])
    return steps.astype(jnp.int8), scale


def restore(base: Base) -> Any:
    """The stored weights as the model's parameters, float32."""
    params = jax.tree.map(lambda x: x.astype(jnp.float32), base["params"])
    for path, scale in base["scales"].items():
        part, name = path.split("/")
        linear = params["blocks"][part][name]
        linear["kernel"] = linear["kernel"] * scale[:, None, :]
    return params


def column_squares(base: Base, path: str) -> Array:
    """Squared norm f32[L, O] of each output's weights in a projection."""
    part, name = path.split("/")
    squares = column_sums_of_squares(base["params"]["blocks"][part][name]["kernel"])
    scale = base["scales"].get(path)
    return squares if scale is None else squares * scale**2


def column_sums_of_squares(kernel: Array) -> Array:
    """f[..., I, O] -> f32[..., O]."""
    return jnp.sum(jnp.square(kernel.astype(jnp.float32)), -2)


def stored_bytes(
    model: ModelConfig, dtype: BaseDtype, held: Mapping[str, tuple[int, ...]] | None = None
) -> int:
    """Bytes of the stored base; of the parts of it, by path, whose shapes are `held`."""
    total = 0
    for name, shape in (nn.tensors(model) if held is None else held).items():
        size = math.prod(shape)
        if dtype == "float32":
            own = 2 if model.param_dtype == "bfloat16" and "norm" not in name else 4
            total += own * size
        elif "norm" in name or name.endswith("bias"):
            total += 4 * size
        elif dtype == "int8" and name.startswith("blocks/") and name.endswith("/kernel"):
            total += size + 4 * shape[0] * shape[2]
        else:
            total += 2 * size
    return total
