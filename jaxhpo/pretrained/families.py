"""Which families a model fits, and its config.json as one of them."""

from collections.abc import Callable
from typing import Any

from jaxhpo.errors import UsageError
from jaxhpo.nn.config import ModelConfig
from jaxhpo.pretrained.names import WEIGHTS
from jaxhpo.pretrained.rope import rope_table

Misfit = tuple[str, Any, Any]
"""A field, its value, and what is allowed."""


def family_of(config: ModelConfig, family: str | None = None) -> str:
    """The family, or the first one that the model fits.

    Raises UsageError naming the fields that don't fit, of the nearest family where none is given.
    """
    if family is not None and family not in WEIGHTS:
        raise UsageError(f"family={family}; allowed: {', '.join(WEIGHTS)}")
    candidates = tuple(WEIGHTS) if family is None else (family,)
    misfits = {name: misfits_of(config, name) for name in candidates}
    nearest = min(candidates, key=lambda name: len(misfits[name]))
    if not misfits[nearest]:
        return nearest
    what = "; ".join(
        f"model.{field}={value} (allowed: {allowed})" for field, value, allowed in misfits[nearest]
    )
    which = "this family" if family else "the nearest family"
    raise UsageError(f"the model does not fit {nearest}, {which}: {what}")


def misfits_of(config: ModelConfig, family: str) -> list[Misfit]:
    """The fields of a model that a family has no place for."""
    found = []
    for field, allowed in {**_SHAPES[family], **_EVERYWHERE}.items():
        values = allowed(config) if callable(allowed) else allowed
        if (value := getattr(config, field)) not in values:
            text = "1 or more" if isinstance(values, range) else " or ".join(map(str, values))
            found.append((_ASKED.get(field, field), value, text))
    return found


def config_table(config: ModelConfig, family: str, first_position: int = 0) -> dict[str, Any]:
    """The entries of a model's config.json, which fits the family; RoBERTa's table of positions
    has `first_position` rows in front of the first one."""
    table: dict[str, Any] = {"model_type": family, **_TABLES[family](config)}
    if first_position:
        table["max_position_embeddings"] += first_position
    return table


def architecture(config: ModelConfig, family: str) -> str:
    """The class of the transformers library that holds the model."""
    head = "ForCausalLM"
    if config.attention == "bidirectional":
        head = "ForMaskedLM" if config.readout_transform else "Model"
    return f"{_CLASSES[family]}{'LMHeadModel' if family == 'gpt2' else head}"


_CLASSES = {
    "gpt2": "GPT2", "llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3",
    "bert": "Bert", "roberta": "Roberta",
}  # fmt: skip

_ASKED = {
    "has_qkv_bias": "qkv_bias", "has_out_bias": "out_bias", "has_mlp_bias": "mlp_bias",
    "kv_heads": "num_kv_heads", "width_of_head": "head_dim",
}  # fmt: skip
"""Property -> the field that a person sets."""

_EVERYWHERE: dict[str, Any] = {"logit_softcap": (None,), "attention_softcap": (None,)}

_ROTARY: dict[str, Any] = {
    "norm": ("rms",),
    "norm_position": ("pre",),
    "attention": ("causal",),
    "position": ("rotary",),
    "activation": ("swiglu",),
    "token_types": (None,),
    "readout_transform": (False,),
}
_LEARNED: dict[str, Any] = {
    "norm": ("layer",),
    "position": ("learned",),
    "window": (None,),
    "qk_norm": (False,),
    "bias": (True,),
    "has_qkv_bias": (True,),
    "has_out_bias": (True,),
    "has_mlp_bias": (True,),
    "kv_heads": lambda config: (config.num_heads,),
    "width_of_head": lambda config: (config.d_model / config.num_heads,),
}
_ENCODER: dict[str, Any] = {
    **_LEARNED,
    "norm_position": ("post",),
    "attention": ("bidirectional",),
    "activation": ("gelu", "gelu_tanh"),
    "token_types": range(1, 1 << 16),
    # without its transform it is a model without a head
    "tie_embeddings": lambda config: (True, False) if config.readout_transform else (True,),
}
_AS_QKV = {"has_out_bias": lambda config: (config.has_qkv_bias,)}

_SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": {
        **_LEARNED,
        "norm_position": ("pre",),
        "attention": ("causal",),
        "activation": ("gelu", "gelu_tanh"),
        "token_types": (None,),
        "readout_transform": (False,),
    },
    "llama": {**_ROTARY, **_AS_QKV, "qk_norm": (False,), "window": (None,)},
    "mistral": {
        **_ROTARY,
        "qk_norm": (False,),
        **dict.fromkeys(("has_qkv_bias", "has_out_bias", "has_mlp_bias"), (False,)),
    },
    "qwen2": {
        **_ROTARY,
        "qk_norm": (False,),
        "has_qkv_bias": (True,),
        "has_out_bias": (False,),
        "has_mlp_bias": (False,),
    },
    "qwen3": {**_ROTARY, **_AS_QKV, "qk_norm": (True,), "has_mlp_bias": (False,)},
    "bert": _ENCODER,
    "roberta": {**_ENCODER, "activation": ("gelu",)},
}
"""Family -> field -> the values that it has a place for."""


def _gpt2(config: ModelConfig) -> dict[str, Any]:
    return {
        "n_layer": config.num_layers,
        "n_embd": config.d_model,
        "n_head": config.num_heads,
        "n_inner": config.d_mlp,
        "n_positions": config.context,
        "vocab_size": config.vocab_size,
        "activation_function": _gelu(config),
        "layer_norm_epsilon": config.norm_eps,
        "initializer_range": config.init_std,
        "tie_word_embeddings": config.tie_embeddings,
    }


def _rotary(config: ModelConfig) -> dict[str, Any]:
    return {
        **_sizes(config),
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.width_of_head,
        "max_position_embeddings": config.context,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_eps,
        **rope_table(config),
    }


def _qwen(config: ModelConfig) -> dict[str, Any]:
    windows = {"use_sliding_window": config.window is not None, "sliding_window": config.window}
    return {**_rotary(config), **windows, "max_window_layers": 0}


def _qwen2(config: ModelConfig) -> dict[str, Any]:
    """Its own config has no width of a head, unless it is another than usual."""
    table = _qwen(config)
    if config.head_dim is None:
        del table["head_dim"]
    return table


def _encoder(config: ModelConfig) -> dict[str, Any]:
    return {
        **_sizes(config),
        "max_position_embeddings": config.context,
        "type_vocab_size": config.token_types,
        "hidden_act": _gelu(config),
        "layer_norm_eps": config.norm_eps,
    }


def _sizes(config: ModelConfig) -> dict[str, Any]:
    return {
        "num_hidden_layers": config.num_layers,
        "hidden_size": config.d_model,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.mlp_width,
        "vocab_size": config.vocab_size,
        "initializer_range": config.init_std,
        "tie_word_embeddings": config.tie_embeddings,
    }


def _gelu(config: ModelConfig) -> str:
    return "gelu" if config.activation == "gelu" else "gelu_new"


_TABLES: dict[str, Callable[[ModelConfig], dict[str, Any]]] = {
    "gpt2": _gpt2,
    "llama": lambda config: {
        **_rotary(config),
        "attention_bias": config.has_qkv_bias,
        "mlp_bias": config.has_mlp_bias,
    },
    "mistral": lambda config: {**_rotary(config), "sliding_window": config.window},
    "qwen2": _qwen2,
    "qwen3": lambda config: {**_qwen(config), "attention_bias": config.has_qkv_bias},
    "bert": _encoder,
    "roberta": _encoder,
}
