"""`jaxhpo export RUN DIR`: the model of a run as a folder that the transformers library loads."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxhpo.cli.options import parse
from jaxhpo.cli.positional import existing
from jaxhpo.errors import UsageError
from jaxhpo.population.config import ExecutionConfig, prepare_backend

USAGE = "jaxhpo export RUN DIR"
HEAD, CLASSES = "head.safetensors", "head.json"


@dataclass(frozen=True)
class ExportQuery:
    """The best model of a run, or any trial that a checkpoint of it holds, adapters merged in.

    Of a classifier or a regression the folder has the model as it stands behind the head, and the
    head beside it in files of its own: head.safetensors and head.json.
    """

    trial: int | None = None
    """trial to export (default: the best)"""
    family: str | None = None
    """family whose format is written (default: the base's, or the first that the model fits)"""


def export(run: Path | str, folder: Path | str, query: ExportQuery | None = None) -> Path:
    """Writes the folder and gives its path; it is there as a whole or not at all.

    Raises UsageError for a run without a model, for a model that no family has, for AdaMoLE, which
    can't be merged, and where the folder exists.
    """
    query = ExportQuery() if query is None else query
    prepare_backend(ExecutionConfig(), 1)
    from safetensors.numpy import save

    from jaxhpo.pretrained import save as save_model
    from jaxhpo.study.weights import load

    folder = Path(folder)
    if folder.exists():
        raise UsageError(f"{folder} exists; allowed: a new folder")
    found = load(run, query.trial, headed=True)
    base, beside = found.base, None
    if base is not None and (base.folder / "tokenizer.json").is_file():
        beside = base.folder / "tokenizer.json"
    family = query.family or (None if base is None else base.family)
    special = None if base is None else base.special
    written = save_model(folder, found.model, found.params, family, beside, special=special)
    if found.head is not None:
        (written / HEAD).write_bytes(save({n: x.copy() for n, x in found.head.items()}))
        (written / CLASSES).write_text(json.dumps(found.about_head, indent=2) + "\n")
    return written


def main(argv: Sequence[str]) -> int:
    if "-h" in argv or "--help" in argv:
        parse(ExportQuery, ["--help"], USAGE)
    if len(argv) < 2 or argv[0].startswith("-") or argv[1].startswith("-"):
        raise UsageError(f"a run and a new folder are needed; usage: {USAGE} [OPTIONS]")
    print(export(existing(argv[0]), argv[1], parse(ExportQuery, argv[2:], USAGE)))
    return 0
