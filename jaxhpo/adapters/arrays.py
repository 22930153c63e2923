"""The trained arrays of an adapter: a tree like the model's, every leaf with a leading [L]."""

import re
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxhpo import nn
from jaxhpo.adapters.config import AdapterConfig
from jaxhpo.adapters.hyperparams import AdapterHyperparams
from jaxhpo.adapters.storage import column_squares
from jaxhpo.errors import UsageError
from jaxhpo.nn.config import ModelConfig

Array = jax.Array
Arrays = dict[str, Array]
"""Arrays of one projection's adapter by name."""

SVD_STD = 0.02
"""Of AdaLoRA's singular vectors at the start."""


def projections(model: ModelConfig) -> dict[str, tuple[int, int]]:
    """Inputs and outputs of every projection of a block, by path such as `attention/query`."""
    found = {}
    for name, shape in nn.tensors(model).items():
        if name.startswith("blocks/") and name.endswith("/kernel"):
            found[name.removeprefix("blocks/").removesuffix("/kernel")] = shape[1:]
    return found


def targets_of(config: AdapterConfig, model: ModelConfig) -> tuple[str, ...]:
    """The projections that have an adapter. Raises UsageError for a rule that matches none."""
    known = projections(model)
    for rule in config.targets:
        if not any(re.search(rule, path) for path in known):
            raise UsageError(
                f"adapter.targets: {rule!r} matches no projection; there are {', '.join(known)}"
            )
    return tuple(path for path in known if any(re.search(rule, path) for rule in config.targets))


def tensors(config: AdapterConfig, model: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every trained array by its path, such as `blocks/attention/query/lora_a`."""
    if config.kind == "none":
        return {}
    layers, rank, known = model.num_layers, config.width, projections(model)
    found: dict[str, tuple[int, ...]] = {}
    for path in targets_of(config, model):
        inputs, outputs = known[path]
        experts = (config.experts,) if config.kind == "adamole" else ()
        own: dict[str, tuple[int, ...]] = {
            "lora_a": (*experts, inputs, rank),
            "lora_b": (*experts, rank, outputs),
        }
        if config.kind == "adalora":
            own["lora_e"] = (rank,)
        if config.kind == "dora":
            own["magnitude"] = (outputs,)
        if config.kind == "adamole":
            own |= {"gate": (inputs, config.experts), "threshold": (inputs,), "threshold_bias": ()}
        found |= {f"blocks/{path}/{name}": (layers, *shape) for name, shape in own.items()}
    return found


def init(
    config: AdapterConfig,
    model: ModelConfig,
    key: Array,
    hyperparams: AdapterHyperparams,
    base: Any = None,
) -> dict[str, Any]:
    """New arrays, with which the model gives what its base gives.

    Directions beyond the rank are zero, and those within it are the same whatever room there is for
    more. `base` is the stored base, which DoRA's magnitudes are measured on.
    """
    if config.kind == "none":
        return {}
    blocks: dict[str, Any] = {}
    known = projections(model)
    for path in targets_of(config, model):
        own = jax.random.fold_in(key, stream(path))
        keys = jax.vmap(lambda layer, own=own: jax.random.fold_in(own, layer))(
            jnp.arange(model.num_layers)
        )
        draw = lambda key, sides=known[path]: _new(config, *sides, key, hyperparams)
        arrays = jax.vmap(draw)(keys)
        if config.kind == "dora":
            arrays["magnitude"] = jnp.sqrt(column_squares(base, path))
        put(blocks, path, arrays)
    return {"blocks": blocks}


def _new(
    config: AdapterConfig, inputs: int, outputs: int, key: Array, hyperparams: AdapterHyperparams
) -> Arrays:
    """Arrays of one projection in one layer."""
    bound, mask = inputs**-0.5, hyperparams.mask(config.width)
    uniform = lambda key, shape: jax.random.uniform(key, shape, minval=-bound, maxval=bound)
    key_a, key_b, key_gate, key_threshold, key_bias = jax.random.split(key, 5)

    def directions(key: Array, size: int, draw: Any) -> Array:
        """f32[R, size], each row from a key of its own."""
        rows = jax.vmap(lambda row: draw(jax.random.fold_in(key, row), (size,)))
        return jnp.where(mask[:, None], rows(jnp.arange(config.width)), 0.0)

    if config.kind == "adalora":
        normal = lambda key, shape: SVD_STD * jax.random.normal(key, shape)
        return {
            "lora_a": directions(key_a, inputs, normal).T,
            "lora_e": jnp.zeros(config.width),
            "lora_b": directions(key_b, outputs, normal),
        }
    if config.init == "gaussian":
        draw = lambda key, shape: jax.random.normal(key, shape) / hyperparams.rank
    else:
        draw = uniform
    if config.kind == "adamole":
        each = lambda expert: directions(jax.random.fold_in(key_a, expert), inputs, draw).T
        return {
            "lora_a": jax.vmap(each)(jnp.arange(config.experts)),
            "lora_b": jnp.zeros((config.experts, config.width, outputs)),
            "gate": uniform(key_gate, (inputs, config.experts)),
            "threshold": uniform(key_threshold, (inputs,)),
            "threshold_bias": uniform(key_bias, ()),
        }
    lora_b = jnp.zeros((config.width, outputs))
    return {"lora_a": directions(key_a, inputs, draw).T, "lora_b": lora_b}


def stream(path: str) -> int:
    """A number for a projection's own random draws, whatever other targets there are."""
    return zlib.crc32(path.encode()) & 0x7FFFFFFF


def put(tree: dict[str, Any], path: str, value: Any) -> None:
    """Writes into a nested dict by a path with slashes."""
    *folders, leaf = path.split("/")
    for folder in folders:
        tree = tree.setdefault(folder, {})
    tree[leaf] = value


def take(tree: Mapping[str, Any], path: str) -> Any:
    """Reads from a nested dict by a path with slashes."""
    for part in path.split("/"):
        tree = tree[part]
    return tree


def each_target(params: Mapping[str, Any]) -> Iterator[tuple[str, Arrays]]:
    """Path and arrays of every projection that has an adapter in a tree of trained arrays."""
    for part, names in params.get("blocks", {}).items():
        for name, arrays in names.items():
            yield f"{part}/{name}", arrays
