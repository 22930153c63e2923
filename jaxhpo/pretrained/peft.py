"""Adapter folders in PEFT's format: adapter_config.json and adapter_model.safetensors."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxhpo import adapters
from jaxhpo.adapters.config import AdapterConfig
from jaxhpo.adapters.hyperparams import AdapterHyperparams
from jaxhpo.adapters.peft import Loaded
from jaxhpo.errors import UsageError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def save_adapter(
    folder: Path,
    config: AdapterConfig,
    family: str,
    params: Mapping[str, Any],
    hyperparams: AdapterHyperparams,
    *,
    base: str | None = None,
    task_type: str | None = None,
    saved: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Writes one trained adapter; PEFT reads it, but for AdaMoLE, which it does not have.

    `family` is transformers' model_type, `base` the folder or name of the base model, `task_type`
    PEFT's, such as CAUSAL_LM; `saved` are tensors by module of what was trained beside the adapter.
    """
    from safetensors.numpy import save_file  # late: needed for writing alone

    described, tensors = adapters.to_peft(config, family, params, hyperparams, saved)
    described |= {"base_model_name_or_path": base, "task_type": task_type}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(described, indent=2, sort_keys=True) + "\n")


def load_adapter(folder: Path, family: str) -> Loaded:
    """Reads an adapter folder. Raises UsageError for a missing or unreadable file."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file  # late: needed for reading alone

    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise UsageError(f"{folder} has no {name}; give a folder that PEFT or jaxhpo wrote")
    try:
        described = json.loads((folder / CONFIG).read_text())
        tensors = load_file(folder / WEIGHTS)
    except (ValueError, SafetensorError) as error:
        raise UsageError(f"{folder} can't be read: {error}") from None
    return adapters.from_peft(described, tensors, family)
