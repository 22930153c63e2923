"""A model as a folder that the transformers library loads."""

import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxhpo.errors import UsageError
from jaxhpo.nn.config import ModelConfig
from jaxhpo.nn.sizes import tensors
from jaxhpo.pretrained.config_json import CONFIG
from jaxhpo.pretrained.families import architecture, config_table, family_of
from jaxhpo.pretrained.folder import INDEX, WEIGHTS_FILE
from jaxhpo.pretrained.names import UNTIED_BIASES, WEIGHTS, Source, sources
from jaxhpo.pretrained.shapes import SPECIAL
from jaxhpo.pretrained.vocabulary import TOKENIZER, checked_tokenizer

SHARD_BYTES = 2 << 30
PADDING = 1
"""RoBERTa's id of padding where none is given: positions are counted from the row behind it."""
BESIDE_TOKENIZER = ("tokenizer_config.json", "special_tokens_map.json")


def save(
    folder: Path | str,
    config: ModelConfig,
    params: Mapping[str, Any],
    family: str | None = None,
    tokenizer: Path | str | None = None,
    *,
    special: Mapping[str, Any] | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> Path:
    """Writes a folder of the Hugging Face format; it is there as a whole or not at all.

    `family` defaults to the first that the model fits. `tokenizer` is a tokenizer.json, copied with
    what the library keeps beside it, and `special` the ids for config.json, as `Pretrained` has
    them. Weights keep their dtype, in files of about `shard_bytes`. Raises UsageError where the
    folder exists, the model fits no family, a parameter is not of its shape, or the tokenizer has
    more ids than the model.
    """
    folder = Path(folder)
    family = family_of(config, family)
    leaves = _checked(config, params)
    if tokenizer is not None:
        checked_tokenizer(Path(tokenizer), config.vocab_size or 0)
    if folder.exists():
        raise UsageError(f"{folder} exists; allowed: a new folder")
    first = (special or {}).get("pad_token_id", PADDING) + 1 if family == "roberta" else 0
    dtype = str(leaves["embed/embedding"].dtype)
    table = {
        "architectures": [architecture(config, family)],
        **config_table(config, family, first),
        **({"pad_token_id": PADDING} if family == "roberta" else {}),
        # a family's own defaults may be no ids of this vocabulary
        **(dict.fromkeys(SPECIAL) if config.attention == "causal" else {}),
        **(special or {}),
        "dtype": dtype,
        "torch_dtype": dtype,
    }
    part = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.part")
    try:
        part.mkdir(parents=True)
        _write_weights(part, _groups(config, leaves, family, first), shard_bytes)
        _write(part / CONFIG, json.dumps(table, indent=2).encode() + b"\n")
        if tokenizer is not None:
            _copy_tokenizer(Path(tokenizer), part)
        _sync(part)
        os.rename(part, folder)
    except OSError as error:
        raise UsageError(f"{folder} can't be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _checked(config: ModelConfig, params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters by path, of the model's shapes."""
    leaves = {}
    for path, shape in tensors(config).items():
        node: Any = params
        for name in path.split("/"):
            node = node.get(name) if isinstance(node, Mapping) else None
        if node is None or tuple(node.shape) != shape:
            found = "absent" if node is None else str(tuple(node.shape))
            raise UsageError(f"parameter {path} is {found}, and the model has {shape}")
        leaves[path] = node
    return leaves


@dataclass(frozen=True)
class _Group:
    """Parameters that share tensors: one, or the three of a fused projection."""

    names: tuple[str, ...]
    parts: tuple[tuple[Source, Any], ...]
    stacked: bool

    @property
    def bytes(self) -> int:
        return sum(leaf.size * leaf.dtype.itemsize for _, leaf in self.parts)

    def tensors(self) -> Iterator[tuple[str, np.ndarray]]:
        """The tensors by name; the parameters are fetched once, here."""
        fetched = [(source, np.asarray(leaf)) for source, leaf in self.parts]
        for layer, name in enumerate(self.names):
            found = [_stored(s, leaf[layer] if self.stacked else leaf) for s, leaf in fetched]
            whole = found[0] if len(found) == 1 else np.concatenate(found, -1)
            yield name, np.ascontiguousarray(whole)


def _stored(source: Source, row: np.ndarray) -> np.ndarray:
    row = row.T if source.transposed else row
    if source.skipped:
        row = np.concatenate([np.zeros((source.skipped, *row.shape[1:]), row.dtype), row])
    return row


def _groups(
    config: ModelConfig, leaves: Mapping[str, Any], family: str, first_position: int
) -> list[_Group]:
    names = WEIGHTS[family]
    # a model without a head has no prefix either
    headless = architecture(config, family).endswith("Model") and family != "gpt2"
    prefix = "" if headless else names.prefix
    gathered: dict[str, list[tuple[str, Source]]] = {}
    for path, source in sources(family, config, first_position).items():
        full = ("" if path in names.head else prefix) + source.name
        gathered.setdefault(full, []).append((path, source))
    groups = []
    for full, members in gathered.items():
        stacked = members[0][0].startswith("blocks/")
        each = [full.format(i) for i in range(config.num_layers)] if stacked else [full]
        members.sort(key=lambda member: member[1].third or 0)
        parts = tuple((source, leaves[path]) for path, source in members)
        groups.append(_Group(tuple(each), parts, stacked))
        for tied, untied in UNTIED_BIASES.items():
            if full == untied:  # the library has both, and uses this one
                groups.append(_Group((tied,), parts, stacked))
    return groups


def _write_weights(folder: Path, groups: list[_Group], shard_bytes: int) -> None:
    """One file, or files of about `shard_bytes` and their index."""
    shards: list[list[_Group]] = [[]]
    for group in groups:
        if shards[-1] and sum(each.bytes for each in [*shards[-1], group]) > shard_bytes:
            shards.append([])
        shards[-1].append(group)
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = WEIGHTS_FILE
        if len(shards) > 1:
            file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        held = dict(pair for group in shard for pair in group.tensors())
        _write_tensors(folder / file, held)
        places |= dict.fromkeys(held, file)
    if len(shards) > 1:
        size = sum(group.bytes for group in groups)
        table = {"metadata": {"total_size": size}, "weight_map": places}
        _write(folder / INDEX, json.dumps(table, indent=2).encode() + b"\n")


def _write_tensors(path: Path, held: dict[str, np.ndarray]) -> None:
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        save_file(held, path, {"format": "pt"})
    except SafetensorError as error:
        raise OSError(str(error)) from None
    _sync(path)


def _copy_tokenizer(tokenizer: Path, folder: Path) -> None:
    _write(folder / TOKENIZER, tokenizer.read_bytes())
    for name in BESIDE_TOKENIZER:
        if (tokenizer.parent / name).is_file():
            _write(folder / name, (tokenizer.parent / name).read_bytes())


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
