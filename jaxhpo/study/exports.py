"""What fine-tuning leaves for other programs: an adapter folder in PEFT's format."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxhpo.config.finetune import FinetuneRun
from jaxhpo.population import hyperparams
from jaxhpo.study.bases import HEADED

ADAPTER = "best/adapter"
"""Where in a run directory the best trial's adapter is."""

UNNAMED = "llama"
"""Family whose names the adapter of a model without one gets."""

TASK_TYPES = {"instructions": "CAUSAL_LM", "language-modelling": "CAUSAL_LM"}


def write_adapter(
    folder: Path,
    config: FinetuneRun,
    family: str | None,
    params: Mapping[str, Any],
    point: Mapping[str, Any],
) -> None:
    """Writes a trial's adapter, whole or not at all; its head beside it under the name `score`."""
    from jaxhpo.pretrained import save_adapter

    head = params.get("head")
    saved = None
    if head is not None:
        saved = {
            "score.weight": np.ascontiguousarray(np.asarray(head["kernel"]).T),
            "score.bias": np.asarray(head["bias"]),
        }
    unfinished = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(unfinished, ignore_errors=True)
    save_adapter(
        unfinished,
        config.adapter,
        family or UNNAMED,
        {name: leaf for name, leaf in params.items() if name != "head"},
        numbers_of(config, point).adapter,
        base=None if config.base is None else str(Path(config.base).expanduser().absolute()),
        task_type="SEQ_CLS" if config.task in HEADED else TASK_TYPES[config.task],
        saved=saved,
    )
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)


def numbers_of(config: FinetuneRun, point: Mapping[str, Any]) -> hyperparams.Hyperparams:
    """The hyperparameters of one trial."""
    rows = hyperparams.lower(config, tuple(point), [point])
    return jax.tree.map(lambda x: x[0], rows)
