"""Projections as the modules of transformers' families.

GPT-2's query, key and value are one module: their adapters become one whose B is block-diagonal,
which has the same change and the sum of the ranks.
"""

import numpy as np

from jaxhpo.adapters.config import AdapterConfig
from jaxhpo.errors import UsageError

Tensors = dict[str, np.ndarray]

_LLAMA = {
    "attention/query": "model.layers.{}.self_attn.q_proj",
    "attention/key": "model.layers.{}.self_attn.k_proj",
    "attention/value": "model.layers.{}.self_attn.v_proj",
    "attention/out": "model.layers.{}.self_attn.o_proj",
    "mlp/up": "model.layers.{}.mlp.up_proj",
    "mlp/gate": "model.layers.{}.mlp.gate_proj",
    "mlp/down": "model.layers.{}.mlp.down_proj",
}
_BERT = {
    "attention/query": "bert.encoder.layer.{}.attention.self.query",
    "attention/key": "bert.encoder.layer.{}.attention.self.key",
    "attention/value": "bert.encoder.layer.{}.attention.self.value",
    "attention/out": "bert.encoder.layer.{}.attention.output.dense",
    "mlp/up": "bert.encoder.layer.{}.intermediate.dense",
    "mlp/down": "bert.encoder.layer.{}.output.dense",
}
_GPT2 = {
    "attention/query": "transformer.h.{}.attn.c_attn",
    "attention/key": "transformer.h.{}.attn.c_attn",
    "attention/value": "transformer.h.{}.attn.c_attn",
    "attention/out": "transformer.h.{}.attn.c_proj",
    "mlp/up": "transformer.h.{}.mlp.c_fc",
    "mlp/down": "transformer.h.{}.mlp.c_proj",
}

MODULES: dict[str, dict[str, str]] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gpt2": _GPT2,
    "bert": _BERT,
    "roberta": {path: name.replace("bert", "roberta", 1) for path, name in _BERT.items()},
}
"""transformers' `model_type` -> the module of each projection, with a place for the layer."""

FUSED = ("attention/query", "attention/key", "attention/value")
"""Projections that are one module of GPT-2, side by side in this order."""


def modules_of(family: str) -> dict[str, str]:
    if family not in MODULES:
        raise UsageError(f"model_type={family!r}; allowed: {', '.join(MODULES)}")
    return MODULES[family]


def target_names(module: str, layers: int) -> list[str]:
    """What PEFT's target_modules says: the module's last name, where no other ends like it."""
    last = module.rpartition(".")[2]
    if last not in ("dense", "c_proj"):
        return [last]
    return [module.format(layer) for layer in range(layers)]


def cut(arrays: Tensors, rank: int) -> Tensors:
    """The first `rank` directions."""
    found = {
        **arrays,
        "lora_a": arrays["lora_a"][..., :rank],
        "lora_b": arrays["lora_b"][..., :rank, :],
    }
    if "lora_e" in arrays:
        found["lora_e"] = arrays["lora_e"][..., :rank]
    return found


def widened(arrays: Tensors, rank: int) -> Tensors:
    """The arrays with directions of zeros behind, up to `rank`."""
    extra = rank - arrays["lora_a"].shape[-1]
    if not extra:
        return arrays

    def pad(name: str, axis: int) -> np.ndarray:
        widths = [(0, 0)] * arrays[name].ndim
        widths[axis] = (0, extra)
        return np.pad(arrays[name], widths)

    found = {**arrays, "lora_a": pad("lora_a", -1), "lora_b": pad("lora_b", -2)}
    if "lora_e" in arrays:
        found["lora_e"] = pad("lora_e", -1)
    return found


def fused(config: AdapterConfig, parts: dict[str, Tensors], family: str) -> Tensors:
    """One module's arrays [L, ...] of those of its parts, side by side."""
    if family != "gpt2" or not set(parts) & set(FUSED):
        return next(iter(parts.values()))
    if config.kind == "adamole":
        raise UsageError("adapter.kind=adamole on GPT-2's query, key or value has no file format")
    if config.kind == "dora" and len(parts) < len(FUSED):
        raise UsageError(
            "adapter.kind=dora on some of GPT-2's query, key and value, which are one module in "
            "PEFT; target all three"
        )
    # all three are of one width; those without an adapter are rows of zeros
    own = next(iter(parts.values()))
    layers, rank, side = own["lora_b"].shape
    blocks = []
    for path, arrays in parts.items():
        place = FUSED.index(path)
        block = np.zeros((layers, rank, side * len(FUSED)), np.float32)
        block[:, :, place * side : (place + 1) * side] = arrays["lora_b"]
        blocks.append(block)
    found = {
        "lora_a": np.concatenate([arrays["lora_a"] for arrays in parts.values()], -1),
        "lora_b": np.concatenate(blocks, -2),
    }
    if "lora_e" in own:
        found["lora_e"] = np.concatenate([arrays["lora_e"] for arrays in parts.values()], -1)
    if "magnitude" in own:
        found["magnitude"] = np.concatenate([parts[path]["magnitude"] for path in FUSED], -1)
    return found


def parted(arrays: Tensors, paths: list[str]) -> dict[str, Tensors]:
    """A module's arrays for each of the projections that it holds: the outputs are cut."""
    if len(paths) == 1:
        return {paths[0]: arrays}
    sides = {
        name: np.split(arrays[name], len(paths), -1)
        for name in ("lora_b", "magnitude")
        if name in arrays
    }
    return {
        path: {**arrays, **{name: pieces[index] for name, pieces in sides.items()}}
        for index, path in enumerate(paths)
    }
