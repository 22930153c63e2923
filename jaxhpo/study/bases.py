"""What fine-tuning starts from: a Hugging Face folder, or the best model of a run."""

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxhpo.config.finetune import FinetuneRun
from jaxhpo.data import subwords
from jaxhpo.data.tokenizers import TOKENIZERS, Bytes, Tokenizer
from jaxhpo.errors import UsageError
from jaxhpo.nn.config import ModelConfig
from jaxhpo.record.directory import CONFIG

HEADED = ("classification", "regression", "pairs")
"""Tasks that read a head off the hidden states, and not the next token."""

OWN = ("context", "compute_dtype", "param_dtype", "remat")
"""What of a model is the user's own to say; all else is the base's."""

READ_OUT = ("tie_embeddings", "readout_transform")
"""What a model has for the next token alone; a task with a head of its own leaves it out."""

BASES_TOKENIZER = "base"


@dataclass(frozen=True)
class Base:
    """A pretrained model as host arrays. `family` is transformers' model_type, none of our own."""

    model: ModelConfig
    params: Any
    family: str | None
    tokenizer: Tokenizer
    fingerprint: str
    folder: Path
    special: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """ids of special tokens in config.json"""


def is_run(path: Path) -> bool:
    """Whether a folder is a run directory of this program."""
    return (path / CONFIG).is_file()


def open_base(config: FinetuneRun, language: bool = False) -> Base:
    """The base that a config names, its context cut to `model.context`.

    What reads the next token is left out for a task that has a head of its own; with `language` it
    is kept where the base has it.
    Raises UsageError where there is none, or what is asked of it does not fit.
    """
    if config.base is None:
        raise UsageError(
            "base is not given; allowed: --base DIR, a Hugging Face folder or a run directory"
        )
    path = Path(config.base).expanduser()
    if not path.is_dir():
        raise UsageError(f"base={config.base} is no folder; nothing is downloaded")
    headed = config.task in HEADED
    if is_run(path):
        base = _of_run(config, path, headed and not language)
    elif headed and language:
        try:
            base = _of_folder(config, path, False)
        except UsageError:  # an encoder without a language head
            base = _of_folder(config, path, True)
    else:
        base = _of_folder(config, path, headed)
    model = shaped(config.model, base.model)
    if config.task not in HEADED and model.attention != "causal":
        raise UsageError(
            f"task={config.task} needs a causal base, and {path} sees both sides; allowed: "
            f"{', '.join(HEADED)}"
        )
    return dataclasses.replace(base, model=model)


def shaped(given: ModelConfig, base: ModelConfig) -> ModelConfig:
    """The base's shape with what is the user's own. Raises UsageError for any other difference."""
    default = ModelConfig()
    for field in dataclasses.fields(ModelConfig):
        asked, there = getattr(given, field.name), getattr(base, field.name)
        if field.name in (*OWN, *READ_OUT):
            continue
        if asked not in (getattr(default, field.name), there):
            raise UsageError(
                f"model.{field.name}={asked}, and the base has {there}; leave it out: of the "
                f"model only {', '.join(OWN)} may be given"
            )
    return dataclasses.replace(base, **{name: getattr(given, name) for name in OWN})


def _of_folder(config: FinetuneRun, path: Path, headed: bool) -> Base:
    from jaxhpo.pretrained import load

    found = load(
        path,
        dtype=config.model.param_dtype,
        context=_fitting(config.model.context, _context(path), path),
        head="none" if headed else "language",
    )
    tokenizer = _tokenizer(config, path, found.tokenizer)
    return Base(
        found.config, found.params, found.family, tokenizer, _digest(path), path, found.special
    )


def _context(path: Path) -> int:
    from jaxhpo.pretrained import read_shape

    return read_shape(path).model.context


def _fitting(asked: int, there: int, path: Path) -> int:
    if asked > there:
        raise UsageError(
            f"model.context={asked}, and the base {path} has {there}; allowed: up to {there}"
        )
    return asked


def _of_run(config: FinetuneRun, path: Path, headed: bool) -> Base:
    from jaxhpo.study.weights import load

    trained = load(path)
    model, params = trained.model, dict(trained.params)
    if headed:
        model = dataclasses.replace(model, tie_embeddings=True, readout_transform=False)
        params = {name: leaf for name, leaf in params.items() if not name.startswith("readout")}
    if model.position == "learned":
        context = _fitting(config.model.context, model.context, path)
        table = params["positions"]["embedding"]
        params["positions"] = {"embedding": np.asarray(table)[:context]}
    if config.data.tokenizer == BASES_TOKENIZER:
        tokenizer = trained.tokenizer
    else:
        tokenizer = _tokenizer(config, path, None)
    return Base(model, params, None, tokenizer, _digest_of(params), path)


def _tokenizer(config: FinetuneRun, path: Path, own: Path | None) -> Tokenizer:
    named = config.data.tokenizer
    if named == "bytes":
        return Bytes()
    if named != BASES_TOKENIZER:
        return subwords.loaded(named, (BASES_TOKENIZER, *TOKENIZERS))
    if own is None:
        raise UsageError(
            f"{path} has no tokenizer.json; give data.tokenizer: the path of the one that belongs "
            "to it, or bytes"
        )
    return subwords.loaded(str(own), (BASES_TOKENIZER,))


def _digest(path: Path) -> str:
    """sha256 over config.json and the weights of a folder."""
    digest = hashlib.sha256()
    for file in sorted([path / "config.json", *path.glob("*.safetensors")]):
        digest.update(file.name.encode())
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()


def _digest_of(params: Any) -> str:
    digest = hashlib.sha256()
    for name, leaf in sorted(_named(params, "")):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


def _named(tree: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _named(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", value
