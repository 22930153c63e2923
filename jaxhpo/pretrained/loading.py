"""Weights of a Hugging Face folder, straight into the arrays that the model runs on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxhpo.errors import UsageError
from jaxhpo.nn.config import ModelConfig
from jaxhpo.nn.sizes import tensors
from jaxhpo.pretrained.folder import Weights
from jaxhpo.pretrained.names import WEIGHTS, Source, sources
from jaxhpo.pretrained.shapes import Described, describe
from jaxhpo.pretrained.vocabulary import TOKENIZER, checked_tokenizer

Placement = jax.sharding.Sharding | Callable[[str, tuple[int, ...]], jax.sharding.Sharding] | None
Head = Literal["language", "none"]


@dataclass(frozen=True)
class Pretrained:
    """A model and its weights. `special` are the ids of special tokens that its config.json has,
    and `tokenizer` the tokenizer.json, if there is one."""

    config: ModelConfig
    params: dict[str, Any]
    family: str
    tokenizer: Path | None
    special: Mapping[str, Any]


def load(
    folder: Path | str,
    *,
    dtype: Literal["float32", "bfloat16"] = "float32",
    context: int | None = None,
    sharding: Placement = None,
    head: Head = "language",
) -> Pretrained:
    """The model in a folder of the Hugging Face format, without torch and without a download.

    `dtype` is `param_dtype`, and norms stay float32. `context` shortens the model's own.
    `sharding`, or what it gives for a parameter's path and shape, is where parameters go: every
    device's part is read for itself. On the host there is one stacked parameter at a time. Without
    a head ("none") the read-out is left out, and the config says that it is tied.

    Raises UsageError for an unknown family, for what this library can't compute, a missing shard or
    tensor, a shape that is not the config's, a tokenizer with more ids than the model, pickled and
    quantised weights.
    """
    folder = Path(folder)
    found = describe(folder)
    if found.family not in WEIGHTS:
        raise UsageError(
            f"{folder}: weights of model_type={found.family} can't be loaded; allowed: "
            f"{', '.join(WEIGHTS)}"
        )
    if found.refused:
        raise UsageError(found.refused[0])
    whole = _headless(found.shape.model) if head == "none" else found.shape.model
    config = replace(_shortened(whole, context), param_dtype=dtype)
    encoder = whole.attention == "bidirectional"
    kind = "" if head == "none" else "ForMaskedLM" if encoder else "ForCausalLM"
    leaves = _leaves(folder, found, whole, Weights(folder, f"AutoModel{kind}"))
    params: dict[str, Any] = {}
    for path, shape in tensors(config).items():
        narrow = dtype == "bfloat16" and "norm/" not in path
        leaf = replace(leaves[path], dtype=jnp.bfloat16 if narrow else jnp.float32)
        _put(params, path, _placed(leaf, path, shape, sharding))
    tokenizer = folder / TOKENIZER
    if tokenizer.is_file():
        checked_tokenizer(tokenizer, config.vocab_size or 0)
    return Pretrained(
        config, params, found.family, tokenizer if tokenizer.is_file() else None, found.special
    )


@dataclass(frozen=True)
class _Leaf:
    """A parameter in the folder: a tensor, or one for each layer."""

    source: Source
    rows: tuple[Any, ...]
    stacked: bool
    dtype: Any = np.float32

    def read(self, index: tuple[slice, ...], shape: tuple[int, ...]) -> np.ndarray:
        """The part `index` of the parameter of this shape; layers are read one at a time."""
        if not self.stacked:
            return self._row(self.rows[0], index, shape)
        rows = self.rows[index[0]]
        first = self._row(rows[0], index[1:], shape[1:])
        found = np.empty((len(rows), *first.shape), self.dtype)
        found[0] = first
        for layer, row in enumerate(rows[1:], 1):
            found[layer] = self._row(row, index[1:], shape[1:])
        return found

    def _row(self, row: Any, index: tuple[slice, ...], shape: tuple[int, ...]) -> np.ndarray:
        part = row[self.source.where(index, shape)]
        return np.ascontiguousarray(part.T if self.source.transposed else part, self.dtype)


def _leaves(
    folder: Path, found: Described, config: ModelConfig, weights: Weights
) -> dict[str, _Leaf]:
    """Every parameter's tensors, all of them there and of the shape that the config has."""
    names = WEIGHTS[found.family]
    embedding = names.body["embed/embedding"].name
    prefix = names.prefix if weights.name(names.prefix + embedding) else ""
    shapes = tensors(config)
    leaves = {}
    for path, source in sources(found.family, config, found.first_position).items():
        stacked = path.startswith("blocks/")
        full = ("" if path in names.head else prefix) + source.name
        each = [full.format(i) for i in range(config.num_layers)] if stacked else [full]
        if path in names.head and weights.name(full) is None:
            raise UsageError(
                f"{folder} has no tensor {full}: no head of a language model; load it with "
                "head=none"
            )
        expected = source.stored(shapes[path][1:] if stacked else shapes[path])
        rows = []
        for name in each:
            rows.append(weights.slices(name))
            if (shape := tuple(rows[-1].get_shape())) != expected:
                raise UsageError(f"{folder}: tensor {name} is {shape}, and the config {expected}")
        leaves[path] = _Leaf(source, tuple(rows), stacked)
    return leaves


def _placed(leaf: _Leaf, path: str, shape: tuple[int, ...], sharding: Placement) -> jax.Array:
    if sharding is None:
        return jnp.asarray(leaf.read(tuple(slice(0, size) for size in shape), shape))
    where = sharding if isinstance(sharding, jax.sharding.Sharding) else sharding(path, shape)
    last: list[Any] = [None, None]

    def part(index: tuple[slice, ...] | None) -> np.ndarray:
        index = tuple(slice(0, size) for size in shape) if index is None else index
        if last[0] != index:  # copies of one part are read once
            last[:] = index, leaf.read(index, shape)
        return last[1]

    return jax.make_array_from_callback(shape, where, part)


def _put(params: dict[str, Any], path: str, leaf: jax.Array) -> None:
    *folders, name = path.split("/")
    for each in folders:
        params = params.setdefault(each, {})
    params[name] = leaf


def _headless(config: ModelConfig) -> ModelConfig:
    return replace(config, tie_embeddings=True, readout_transform=False)


def _shortened(config: ModelConfig, context: int | None) -> ModelConfig:
    if context is None:
        return config
    if not 1 <= context <= config.context:
        raise UsageError(f"context={context}; allowed: 1 to the model's own, {config.context}")
    window = config.window
    return replace(
        config, context=context, window=None if window is None or window >= context else window
    )
