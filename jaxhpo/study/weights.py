"""The models that a run left behind, its best one or any trial in a checkpoint, and others'."""

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxhpo import nn, pretrained
from jaxhpo.config import is_static, replace
from jaxhpo.config.finetune import FinetuneRun
from jaxhpo.config.run import Run
from jaxhpo.data.cache import Cache
from jaxhpo.data.corpus import training_texts
from jaxhpo.data.subwords import loaded
from jaxhpo.data.tokenizers import TOKENIZERS, Tokenizer, open_tokenizer
from jaxhpo.errors import UsageError
from jaxhpo.nn.config import ModelConfig
from jaxhpo.nn.heads import pooling_of
from jaxhpo.pretrained.config_json import CONFIG
from jaxhpo.record.arrays import read as read_arrays
from jaxhpo.record.checkpoints import CheckpointError
from jaxhpo.record.directory import RunDirectory
from jaxhpo.record.history import History, history
from jaxhpo.record.manifest import Damaged, verify
from jaxhpo.record.shelf import Shelf
from jaxhpo.study.bases import Base
from jaxhpo.study.config_of import config_of
from jaxhpo.study.tuned import adapted, whole

BEST = "best/model.safetensors"


@dataclass(frozen=True)
class Trained:
    """A model's weights, with what is needed to use them: one trial's, as host arrays, or those of
    a folder of the Hugging Face format, which has no trials, no steps and no config of a run."""

    run: Path
    trial: int | None
    step: int | None
    config: Run | None
    model: ModelConfig
    params: Any
    tokenizer: Tokenizer
    head: Mapping[str, Any] | None = None
    """of a fine-tuned model that reads classes or numbers"""
    base: Base | None = None
    """of a fine-tuned model"""

    @property
    def about_head(self) -> dict[str, Any]:
        """What the numbers of the head mean."""
        config = self.config
        if not isinstance(config, FinetuneRun) or self.head is None:
            return {}
        pooling = pooling_of(self.model, config.head)
        return {"task": config.task, "classes": list(config.examples.classes), "pooling": pooling}

    @property
    def name(self) -> str:
        return str(self.run) if self.trial is None else f"trial {self.trial}"


def load(
    path: Path | str,
    trial: int | None = None,
    adapter: Path | str | None = None,
    headed: bool = False,
) -> Trained:
    """The best model of a run, or a trial's newest weights, or the model of a folder of the Hugging
    Face format, with the `adapter` in a folder of PEFT's format if one is given.

    A fine-tuned model is its base with the adapter merged in; one that reads classes or numbers has
    no next token, and is given where `headed` only.

    Raises UsageError where `path` is no run directory, has no checkpoint, or none with the trial,
    and as `pretrained.load` does.
    """
    if (Path(path) / CONFIG).is_file():
        return _pretrained(Path(path), trial, adapter)
    if adapter is not None:
        raise UsageError(f"adapter={adapter} goes with a Hugging Face folder; {path} is a run")
    run = RunDirectory.open(path)
    past = history(run.log)
    config = config_of(path, past)
    found = _best(run, past, config, trial) or _checkpointed(run, past, config, trial)
    if found.head is not None and not headed:
        raise UsageError(
            f"{path} is fine-tuned for task={getattr(config, 'task', '')}, which has no next "
            "token; jaxhpo export writes it as a folder"
        )
    if found.base is not None:
        return dataclasses.replace(found, tokenizer=found.base.tokenizer)
    return dataclasses.replace(found, tokenizer=_tokenizer(found.config or config, past))


def _pretrained(folder: Path, trial: int | None, adapter: Path | str | None) -> Trained:
    if trial is not None:
        raise UsageError(f"trial={trial}: {folder} is a pretrained model, which has no trials")
    found = pretrained.load(folder)
    if found.tokenizer is None:
        raise UsageError(f"{folder} has no tokenizer.json, without which a model can't write")
    tokenizer = loaded(str(found.tokenizer), tuple(TOKENIZERS))
    params = found.params
    if adapter is not None:
        params = adapted(Path(adapter), found.family, params)
    return Trained(folder, None, None, None, found.config, params, tokenizer)


def _best(run: RunDirectory, past: History, config: Run, trial: int | None) -> Trained | None:
    """The best model's own file, if the run has finished and that is the trial."""
    best = None if past.finish is None else past.finish["best"]
    if best is None or trial not in (None, best["trial"]) or not (run.path / BEST).is_file():
        return None
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        named = load_file(run.path / BEST)
    except (OSError, SafetensorError) as error:
        raise UsageError(f"{run.path / BEST} can't be read: {error}") from None
    point = _point(past, best["trial"])
    return _trained(run, best["trial"], best["step"], config, point, named, str(run.path / BEST))


def _checkpointed(run: RunDirectory, past: History, config: Run, trial: int | None) -> Trained:
    """A trial in the newest checkpoint that has it and is as it was written."""
    shelf = Shelf(run.checkpoints)
    if not shelf.indices():
        raise UsageError(f"{run.path} has no checkpoint yet; let it train until it has saved one")
    held: set[int] = set()
    damage = []
    for index in reversed(shelf.indices()):
        try:
            manifest = verify(shelf.place(index))
        except Damaged as error:
            damage.append(f"{shelf.place(index)}: {error}")
            continue
        places = {lives.trial: lives for lives in inhabitants(manifest["metadata"])}
        held |= set(places)
        wanted = _leader(past, index, places) if trial is None else trial
        if wanted in places:
            lives = places[wanted]
            named = _row(shelf.place(index), manifest["tree"], lives)
            where, point = str(shelf.place(index)), _point(past, wanted)
            return _trained(run, wanted, lives.step, config, point, named, where)
    if not held:
        raise CheckpointError(f"no checkpoint of {run.path} can be trusted ({'; '.join(damage)})")
    raise UsageError(
        f"trial={trial}: no checkpoint of {run.path} has it; those that are there: "
        f"{', '.join(map(str, sorted(held)))}"
    )


def _trained(
    run: RunDirectory,
    trial: int,
    step: int,
    config: Run,
    point: Mapping[str, Any],
    named: Mapping[str, np.ndarray],
    where: str,
) -> Trained:
    """A trial from its named parameters."""
    config = _of_point(config, point)
    if isinstance(config, FinetuneRun):
        found = whole(config, named, point, where)
        return Trained(
            run.path, trial, step, config, found.model, found.params, _UNOPENED,
            head=found.head, base=found.base,
        )  # fmt: skip
    params = _as_params(config.model, named, where)
    return Trained(run.path, trial, step, config, config.model, params, _UNOPENED)


@dataclass(frozen=True)
class Lives:
    """A trial in a checkpoint: its place in a population (by name, "" where there is one)."""

    trial: int
    step: int
    place: int
    population: str = ""


def inhabitants(metadata: Mapping[str, Any]) -> tuple[Lives, ...]:
    """Who lives where in a checkpoint: in one population, or in one for each compile group.

    >>> inhabitants({"trials": [3, None], "steps": [50, 0]})
    (Lives(trial=3, step=50, place=0, population=''),)
    """
    populations = metadata.get("groups", {"": metadata})
    return tuple(
        Lives(trial, step, place, name)
        for name, places in populations.items()
        for place, (trial, step) in enumerate(zip(places["trials"], places["steps"], strict=True))
        if trial is not None
    )


def _leader(past: History, index: int, trials: Collection[int]) -> int:
    """The trial with the lowest loss at a report; trials held fixed beside a search come last."""
    fixed = {
        row["trial"] for row in past.plans[index]["assignments"] if row.get("group") == "fixed"
    }
    rows = [row for row in past.reports[index]["results"] if row["trial"] in trials]
    ranked = lambda row: (row["trial"] in fixed, not np.isfinite(row["loss"]), row["loss"])
    return min(rows, key=ranked)["trial"]


def _row(place: Path, tree: Mapping[str, Any], lives: Lives) -> dict[str, np.ndarray]:
    """One member's parameters by name; what is read with them is let go."""
    host = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = {
        name: jax.ShapeDtypeStruct(tuple(shape), jax.numpy.dtype(dtype), sharding=host)
        for name, (dtype, shape) in tree.items()
    }
    prefix = f"{lives.population}.params." if lives.population else "params."
    return {
        name.removeprefix(prefix): np.asarray(leaf)[lives.place]
        for name, leaf in read_arrays(place, abstract).items()
        if name.startswith(prefix)
    }


def _as_params(model: ModelConfig, named: Mapping[str, np.ndarray], where: str) -> Any:
    """Named arrays as the model's nested parameters, checked against its shapes."""
    wanted = jax.eval_shape(lambda: nn.init(model, jax.random.key(0)))
    pairs, structure = jax.tree_util.tree_flatten_with_path(wanted)
    leaves = []
    for path, shape in pairs:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        leaf = named.get(name)
        if leaf is None or leaf.shape != shape.shape:
            found = "absent" if leaf is None else str(leaf.shape)
            raise UsageError(f"{where}: {name} is {found}, and the model has {shape.shape}")
        leaves.append(leaf)
    return jax.tree.unflatten(structure, leaves)


def _point(past: History, trial: int) -> Mapping[str, Any]:
    for plan in reversed(past.plans):
        for row in plan["assignments"]:
            if row["trial"] == trial:
                return row["point"]
    return {}


def _of_point(config: Run, point: Mapping[str, Any]) -> Run:
    """The config with the shapes that a trial has of its own."""
    for name, value in point.items():
        if is_static(name):
            config = replace(config, name, value)
    return config


def _tokenizer(config: Run, past: History) -> Tokenizer:
    """The run's own tokenizer: trained again, or from the cache, and the same to the id."""
    prints = past.start["fingerprints"] if past.start else {}
    cache = Cache.open(config.data.cache)
    tokenizer = open_tokenizer(
        config.data,
        lambda: training_texts(config.data),
        prints.get("data", ""),
        cache,
    )
    if prints.get("tokenizer") not in (None, tokenizer.fingerprint):
        raise UsageError(
            f"the tokenizer of {past.path.parent} is not what the run began with: "
            f"data.tokenizer={config.data.tokenizer} gives other ids now"
        )
    return tokenizer


_UNOPENED: Any = None
