"""Adapters as PEFT names and lays them out, there and back; files are `pretrained`'s matter.

PEFT keeps A as [R, I] and B as [O, R].
"""

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from jaxhpo.adapters.arrays import each_target, put
from jaxhpo.adapters.changes import ALLOCATION_EPS, is_rank_stable
from jaxhpo.adapters.config import AdapterConfig
from jaxhpo.adapters.families import (
    Tensors,
    cut,
    fused,
    modules_of,
    parted,
    target_names,
    widened,
)
from jaxhpo.adapters.hyperparams import AdapterHyperparams
from jaxhpo.errors import UsageError

PREFIX = "base_model.model."

TYPES = {"lora": "LORA", "dora": "LORA", "adalora": "ADALORA", "adamole": "ADAMOLE"}
"""Kind -> `peft_type`. PEFT has no AdaMoLE: such a file is for this program alone."""


class Loaded(NamedTuple):
    """An adapter that was read: its config, arrays [L, ...] and the modules trained beside it."""

    config: AdapterConfig
    params: dict[str, Any]
    saved: Tensors


def to_peft(
    config: AdapterConfig,
    family: str,
    params: Mapping[str, Any],
    hyperparams: AdapterHyperparams,
    saved: Mapping[str, np.ndarray] | None = None,
) -> tuple[dict[str, Any], Tensors]:
    """adapter_config.json and the tensors of adapter_model.safetensors for one trained adapter.

    `hyperparams` is the trial's row: the file has its rank, and of the targets those switched on.
    `saved` are tensors by module, such as score.weight, of what was trained beside the adapter.
    """
    modules = modules_of(family)
    rank = int(hyperparams.rank)
    found: dict[str, dict[str, Tensors]] = {}
    for path, arrays in each_target(params):
        if float(hyperparams.on.get(path, 1)):
            own = {name: np.asarray(value, np.float32) for name, value in arrays.items()}
            found.setdefault(modules[path], {})[path] = cut(own, rank)
    if not found:
        raise UsageError("every target of the adapter is switched off; there is nothing to write")
    whole = {module: fused(config, parts, family) for module, parts in found.items()}
    widest = max(own["lora_a"].shape[-1] for own in whole.values())
    tensors: Tensors = {}
    for module, own in whole.items():
        for layer in range(own["lora_a"].shape[0]):
            rows = {name: value[layer] for name, value in widened(own, widest).items()}
            name = f"{PREFIX}{module.format(layer)}"
            tensors |= {f"{name}.{leaf}": x for leaf, x in _peft_names(config, rows).items()}
    heads = dict(saved or {})
    tensors |= {f"{PREFIX}{name}": np.asarray(x, np.float32) for name, x in heads.items()}
    names = sorted({name.rpartition(".")[0] for name in heads})
    described = _describe(config, hyperparams, family, widest, names)
    layers = next(iter(whole.values()))["lora_a"].shape[0]
    described["target_modules"] = sorted(
        name for module in whole for name in target_names(module, layers)
    )
    return described, {name: np.ascontiguousarray(x) for name, x in tensors.items()}


def from_peft(
    described: Mapping[str, Any], tensors: Mapping[str, np.ndarray], family: str
) -> Loaded:
    """The adapter of a PEFT file. Raises UsageError for a type or a layout that is not known."""
    kind = _kind(described)
    modules = modules_of(family)
    rank = described["init_r"] if kind == "adalora" else described["r"]
    config = AdapterConfig(
        kind=kind,
        max_rank=rank,
        rank=rank,
        alpha=float(described.get("lora_alpha", 8)),
        dropout=float(described.get("lora_dropout", 0.0)),
        rslora=bool(described.get("use_rslora", False)),
        experts=int(described.get("experts", 4)),
        threshold_max=described.get("threshold_max"),
        **(
            {"initial_rank": rank, "target_rank": described["target_r"]}
            if kind == "adalora"
            else {}
        ),
    )
    left = {name.removeprefix(PREFIX): np.asarray(x, np.float32) for name, x in tensors.items()}
    blocks: dict[str, Any] = {}
    targets = []
    for module in dict.fromkeys(modules.values()):
        layers = _layers(left, module)
        if not layers:
            continue
        rows = [_own_names(config, own) for own in layers]
        whole = widened({name: np.stack([r[name] for r in rows]) for name in rows[0]}, rank)
        paths = [path for path, name in modules.items() if name == module]
        for path, arrays in parted(whole, paths).items():
            put(blocks, path, arrays)
            targets.append(f"^{path}$")
    if not targets:
        raise UsageError(f"the adapter has no tensor for a module of {family}")
    return Loaded(replace(config, targets=tuple(targets)), {"blocks": blocks}, left)


def _peft_names(config: AdapterConfig, rows: Tensors) -> Tensors:
    """One module's tensors in one layer, by what follows the module's name."""
    if config.kind == "adalora":
        return {
            "lora_A": rows["lora_a"].T,
            "lora_B": rows["lora_b"].T,
            "lora_E": rows["lora_e"][:, None],
        }
    if config.kind == "adamole":
        found = {
            "gate.weight": rows["gate"].T,
            "threshold.weight": rows["threshold"][None],
            "threshold.bias": rows["threshold_bias"][None],
        }
        for expert in range(config.experts):
            found[f"lora_A.{expert}.weight"] = rows["lora_a"][expert].T
            found[f"lora_B.{expert}.weight"] = rows["lora_b"][expert].T
        return found
    found = {"lora_A.weight": rows["lora_a"].T, "lora_B.weight": rows["lora_b"].T}
    if config.kind == "dora":
        found["lora_magnitude_vector"] = rows["magnitude"]
    return found


def _own_names(config: AdapterConfig, rows: Tensors) -> Tensors:
    """The way back from `_peft_names`."""
    end = "" if config.kind == "adalora" else ".weight"
    try:
        if config.kind == "adamole":
            each = lambda side: np.stack(
                [rows[f"lora_{side}.{expert}.weight"].T for expert in range(config.experts)]
            )
            return {
                "lora_a": each("A"),
                "lora_b": each("B"),
                "gate": rows["gate.weight"].T,
                "threshold": rows["threshold.weight"][0],
                "threshold_bias": rows["threshold.bias"][0],
            }
        found = {"lora_a": rows[f"lora_A{end}"].T, "lora_b": rows[f"lora_B{end}"].T}
        if config.kind == "adalora":
            found["lora_e"] = rows["lora_E"][:, 0]
        if config.kind == "dora":
            found["magnitude"] = rows["lora_magnitude_vector"]
        return found
    except KeyError as error:
        raise UsageError(f"the adapter lacks {error.args[0]} of one of its modules") from None


def _layers(left: Tensors, module: str) -> list[Tensors]:
    """The tensors of a module in every layer, taken out of `left`."""
    before, after = map(re.escape, module.split("{}"))
    pattern = re.compile(rf"^{before}(\d+){after}\.((?:lora_|gate\.|threshold\.).*)$")
    found: dict[int, Tensors] = {}
    for name in list(left):
        if match := pattern.match(name):
            found.setdefault(int(match[1]), {})[match[2]] = left.pop(name)
    if sorted(found) != list(range(len(found))):
        raise UsageError(f"the adapter has {module} in layers {sorted(found)} only; allowed: all")
    return [found[layer] for layer in range(len(found))]


def _kind(described: Mapping[str, Any]) -> Any:
    """The kind of a PEFT config. Raises UsageError for what this program would get wrong."""
    peft_type = described.get("peft_type")
    kinds = {"LORA": "lora", "ADALORA": "adalora", "ADAMOLE": "adamole"}
    if peft_type not in kinds:
        raise UsageError(f"peft_type={peft_type!r}; allowed: {', '.join(kinds)}")
    if described.get("bias", "none") != "none":
        raise UsageError(f"bias={described['bias']!r} of the adapter; allowed: none")
    for name in ("rank_pattern", "alpha_pattern"):
        if described.get(name) and peft_type != "ADALORA":
            raise UsageError(f"{name} of the adapter is not empty; allowed: one rank and alpha")
    for name in ("init_r", "target_r") if peft_type == "ADALORA" else ("r",):
        if name not in described:
            raise UsageError(f"the adapter's config has no {name}")
    return "dora" if described.get("use_dora") else kinds[peft_type]


def _describe(
    config: AdapterConfig,
    hyperparams: AdapterHyperparams,
    family: str,
    rank: int,
    saved: list[str],
) -> dict[str, Any]:
    """adapter_config.json but for the targets: `rank` is the file's, with an alpha to fit it."""
    own, alpha = int(hyperparams.rank), float(hyperparams.alpha)
    if config.kind == "adalora":
        alpha *= (rank + ALLOCATION_EPS) / (own + ALLOCATION_EPS)
    elif config.kind != "adamole":
        alpha *= math.sqrt(rank / own) if is_rank_stable(config) else rank / own
    dropout = 0.0 if hyperparams.dropout is None else float(hyperparams.dropout)
    found = {
        "peft_type": TYPES[config.kind],
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": dropout,
        "use_rslora": is_rank_stable(config),
        "use_dora": config.kind == "dora",
        "bias": "none",
        "fan_in_fan_out": family == "gpt2",
        "init_lora_weights": True,
        "inference_mode": True,
        "modules_to_save": saved or None,
    }
    if config.kind == "adalora":
        found.pop("r")  # PEFT warns that AdaLoRA has none
        found |= {
            "init_r": rank,
            "target_r": int(hyperparams.of("target_rank")),
            "beta1": 1.0 - float(hyperparams.of("one_minus_beta1")),
            "beta2": 1.0 - float(hyperparams.of("one_minus_beta2")),
            "orth_reg_weight": float(hyperparams.of("orthogonality")),
            "tinit": int(hyperparams.of("tinit")),
            "tfinal": int(hyperparams.of("tfinal")),
            "deltaT": int(hyperparams.of("delta_t")),
            "total_step": int(hyperparams.of("total_steps")),
        }
    if config.kind == "adamole":
        found |= {
            "experts": config.experts,
            "threshold_max": float(hyperparams.of("threshold_max")),
        }
    return found
