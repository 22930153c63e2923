"""The shape of a model from its config.json: no weights are read, and nothing heavy is imported."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jaxhpo.errors import UsageError
from jaxhpo.nn.config import ModelConfig
from jaxhpo.nn.published import Published, embedding_norm
from jaxhpo.pretrained.config_json import CONFIG as CONFIG
from jaxhpo.pretrained.config_json import ConfigJson, read_config
from jaxhpo.pretrained.rope import read_rope

GELUS = {
    "gelu": "gelu", "gelu_python": "gelu", "gelu_new": "gelu_tanh", "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh", "gelu_accurate": "gelu_tanh",
}  # fmt: skip
GATED = {"silu": "swiglu", "swish": "swiglu"}
SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")


@dataclass(frozen=True)
class Described:
    """What a config.json says: the model, what of it this library can't compute, and the rows that
    the table of positions has in front of the first one."""

    shape: Published
    family: str
    refused: tuple[str, ...]
    first_position: int
    special: Mapping[str, Any]


def read_shape(folder: Path | str) -> Published:
    """The shape of the model in a folder of the Hugging Face format.

    Raises UsageError where there is no config.json that is understood, naming the families.
    """
    return describe(folder).shape


def describe(folder: Path | str) -> Described:
    """All that the config.json of a folder says of its model; raises as `read_shape` does."""
    table = read_config(folder)
    family = table.table.get("model_type")
    if not isinstance(family, str) or family not in FAMILIES:
        allowed = ", ".join(sorted(FAMILIES))
        raise UsageError(f"{table.path}: model_type={family!r}; allowed: {allowed}")
    path = str(table.path)
    try:
        found = FAMILIES[family](table)
    except UsageError as error:
        raise UsageError(str(error) if path in str(error) else f"{path}: {error}") from None
    if table.table.get("quantization_config") is not None:
        table.refuse("quantization_config", "...", "none; load full-precision weights")
    return Described(
        replace(found, source=path),
        family,
        tuple(table.refused),
        _first_position(table) if family == "roberta" else 0,
        {name: table.table[name] for name in SPECIAL if table.table.get(name) is not None},
    )


def _gpt2(table: ConfigJson) -> Published:
    for name, plain in (
        ("scale_attn_weights", True),
        ("scale_attn_by_inverse_layer_idx", False),
        ("add_cross_attention", False),
    ):
        table.choice(name, plain, {plain: plain})
    return Published(
        ModelConfig(
            num_layers=table.whole("n_layer"),
            d_model=table.whole("n_embd"),
            num_heads=table.whole("n_head"),
            d_mlp=table.maybe_whole("n_inner"),
            vocab_size=table.whole("vocab_size"),
            context=table.whole("n_positions", "n_ctx"),
            norm="layer",
            norm_eps=table.number("layer_norm_epsilon", default=1e-5),
            position="learned",
            activation=table.choice("activation_function", "gelu_new", GELUS),
            bias=True,
            tie_embeddings=table.flag("tie_word_embeddings", True),
        )
    )


def _bloom(table: ConfigJson) -> Published:
    model = ModelConfig(
        num_layers=table.whole("n_layer", "num_hidden_layers"),
        d_model=table.whole("hidden_size", "n_embed"),
        num_heads=table.whole("n_head", "num_attention_heads"),
        vocab_size=table.whole("vocab_size"),
        context=table.whole("seq_length", default=2048),
        norm="layer",
        norm_eps=table.number("layer_norm_epsilon", default=1e-5),
        position="none",  # ALiBi has no parameters
        activation="gelu_tanh",
        bias=True,
        tie_embeddings=table.flag("tie_word_embeddings", True),
    )
    return Published(model, embedding_norm(model))


def _llama(table: ConfigJson, **more: Any) -> ModelConfig:
    heads = table.whole("num_attention_heads")
    context = table.whole("max_position_embeddings")
    theta, rope = read_rope(table, context)
    window = more.pop("window", None)
    return ModelConfig(
        num_layers=table.whole("num_hidden_layers"),
        d_model=table.whole("hidden_size"),
        num_heads=heads,
        num_kv_heads=table.whole("num_key_value_heads", default=heads),
        head_dim=table.maybe_whole("head_dim"),
        d_mlp=table.whole("intermediate_size"),
        vocab_size=table.whole("vocab_size"),
        context=context,
        window=window if window is not None and window < context else None,
        norm_eps=table.number("rms_norm_eps", default=1e-6),
        rope_theta=theta,
        rope=rope,
        activation=table.choice("hidden_act", "silu", GATED),
        tie_embeddings=table.flag("tie_word_embeddings", False),
        **more,
    )


def _plain_llama(table: ConfigJson) -> Published:
    bias = table.flag("attention_bias", False)
    mlp_bias = table.flag("mlp_bias", False)
    return Published(_llama(table, qkv_bias=bias, out_bias=bias, mlp_bias=mlp_bias))


def _mistral(table: ConfigJson) -> Published:
    # the library's default: absent is not null
    window = table.maybe_whole("sliding_window") if "sliding_window" in table.table else 4096
    return Published(_llama(table, window=window))


def _qwen2(table: ConfigJson) -> Published:
    return Published(_llama(table, qkv_bias=True, window=_qwen_window(table)))


def _qwen3(table: ConfigJson) -> Published:
    bias = table.flag("attention_bias", False)
    window = _qwen_window(table)
    return Published(_llama(table, qk_norm=True, qkv_bias=bias, out_bias=bias, window=window))


def _qwen_window(table: ConfigJson) -> int | None:
    """The window of all layers. Windows in some of them only are refused."""
    if not table.flag("use_sliding_window", False):
        return None
    window = table.whole("sliding_window", default=4096)
    layers, first = table.whole("num_hidden_layers"), table.table.get("max_window_layers", 28)
    kinds = table.table.get("layer_types")
    if isinstance(kinds, list) and all(isinstance(kind, str) for kind in kinds):
        sliding = {kind == "sliding_attention" for kind in kinds}
    else:
        sliding = {layer >= first for layer in range(layers)} if isinstance(first, int) else set()
    if len(sliding) != 1 and window < table.whole("max_position_embeddings"):
        table.refuse("layer_types", sorted(set(kinds or ["mixed"])), "one kind in all layers")
    return window if sliding == {True} else None


def _bert(table: ConfigJson) -> ModelConfig:
    table.choice("is_decoder", False, {False: False})
    table.choice("position_embedding_type", "absolute", {"absolute": None})
    return ModelConfig(
        num_layers=table.whole("num_hidden_layers"),
        d_model=table.whole("hidden_size"),
        num_heads=table.whole("num_attention_heads"),
        d_mlp=table.whole("intermediate_size"),
        vocab_size=table.whole("vocab_size"),
        context=table.whole("max_position_embeddings", default=512),
        norm="layer",
        norm_position="post",
        norm_eps=table.number("layer_norm_eps", default=1e-12),
        attention="bidirectional",
        position="learned",
        token_types=table.whole("type_vocab_size", default=2),
        activation=table.choice("hidden_act", "gelu", GELUS),
        bias=True,
        tie_embeddings=table.flag("tie_word_embeddings", True),
        readout_transform=True,
    )


def _roberta(table: ConfigJson) -> Published:
    # its read-out has the exact gelu whatever the blocks have
    table.choice("hidden_act", "gelu", {name: name for name in ("gelu", "gelu_python")})
    model = _bert(table)
    context = model.context - _first_position(table)
    if context < 1:
        raise UsageError(f"max_position_embeddings={model.context}; allowed: above the padding's")
    rows = {"rows in front of positions": _first_position(table) * model.d_model}
    return Published(replace(model, context=context), rows)


def _first_position(table: ConfigJson) -> int:
    """Rows of RoBERTa's table of positions in front of the first: up to the padding's."""
    padding = table.table.get("pad_token_id", 1)
    if not isinstance(padding, int) or isinstance(padding, bool) or padding < 0:
        raise UsageError(f"{table.path}: pad_token_id={padding!r}; allowed: a whole number")
    return padding + 1


FAMILIES: dict[str, Callable[[ConfigJson], Published]] = {
    "gpt2": _gpt2,
    "bloom": _bloom,
    "llama": _plain_llama,
    "mistral": _mistral,
    "minicpm": lambda table: Published(_llama(table)),
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "bert": lambda table: Published(_bert(table)),
    "roberta": _roberta,
}
"""`model_type` -> its shape."""
