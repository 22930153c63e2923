"""A fine-tuned model as one model's weights: its base, with what was trained put in."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxhpo import adapters
from jaxhpo.config.finetune import FinetuneRun
from jaxhpo.errors import UsageError
from jaxhpo.nn.config import ModelConfig
from jaxhpo.population.memory import trained_tensors
from jaxhpo.study.bases import Base, open_base
from jaxhpo.study.exports import numbers_of

LONG = 1 << 30
"""Steps of a run that is longer than any phase of an adapter that was read from a folder."""


@dataclass(frozen=True)
class Whole:
    """Weights of a model, the head beside it if there is one, and the base it was made from."""

    model: ModelConfig
    params: Any
    head: Mapping[str, np.ndarray] | None
    base: Base


def whole(
    config: FinetuneRun, named: Mapping[str, np.ndarray], point: Mapping[str, Any], where: str
) -> Whole:
    """The base of a run with a trial's parameters, which come by dotted name.

    Raises UsageError where base and parameters do not belong together, and for AdaMoLE, whose
    change depends on the input.
    """
    base = open_base(config, language=True)
    trained: dict[str, Any] = {}
    for path, shape in trained_tensors(config).items():
        leaf = named.get(path.replace("/", "."))
        if leaf is None or leaf.shape != shape:
            found = "absent" if leaf is None else str(leaf.shape)
            raise UsageError(f"{where}: {path} is {found}, and the config has {shape}")
        _put(trained, path, leaf)
    head = trained.pop("head", None)
    if config.adapter.kind == "none":
        return Whole(base.model, {**base.params, **trained}, head, base)
    numbers = numbers_of(config, point).adapter
    stored = adapters.restore(adapters.store(base.params, config.adapter.base_dtype))
    merged = adapters.merge(config.adapter, stored, trained, _present(numbers))
    return Whole(base.model, jax.tree.map(np.asarray, merged), head, base)


def adapted(folder: Path, family: str, params: Any) -> Any:
    """A base's weights with the adapter in a folder of PEFT's format."""
    from jaxhpo.pretrained import load_adapter

    loaded = load_adapter(folder, family)
    numbers = adapters.lower(loaded.config, steps=LONG)
    return adapters.merge(loaded.config, params, loaded.params, _present(numbers))


def _present(numbers: Any) -> Any:
    if numbers is None:
        raise UsageError("the run has no adapter")
    return replace(numbers, rank=jnp.asarray(numbers.rank), alpha=jnp.asarray(numbers.alpha))


def _put(tree: dict[str, Any], path: str, leaf: Any) -> None:
    *folders, name = path.split("/")
    for each in folders:
        tree = tree.setdefault(each, {})
    tree[name] = leaf
