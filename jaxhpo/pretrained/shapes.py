"""The shape of a model from its config.json: no weights are read, and nothing heavy is imported."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jaxhpo.errors import UsageError
from jaxhpo.nn.config import ModelConfig
from jaxhpo.nn.published import Published, embedding_norm, qkv_biases

CONFIG = "config.json"
MOST_BYTES = 1_000_000


def read_shape(folder: Path | str) -> Published:
    """The shape of the model in a folder of the Hugging Face format.

    Raises UsageError where there is no config.json that is understood, naming the families.
    """
    path = Path(folder) / CONFIG
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise UsageError(f"{path} is larger than {MOST_BYTES:,} bytes, the most allowed")
        table = json.loads(content)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from None
    except (ValueError, RecursionError):
        raise UsageError(f"{path} is not JSON") from None
    if not isinstance(table, dict):
        raise UsageError(f"{path} is not a table of names and values")
    family = table.get("model_type")
    if family not in FAMILIES:
        raise UsageError(f"{path}: model_type={family!r}; allowed: {', '.join(sorted(FAMILIES))}")
    try:
        found = FAMILIES[family](_Table(path, table))
    except UsageError as error:
        raise UsageError(str(error) if str(path) in str(error) else f"{path}: {error}") from None
    return Published(found.model, found.beside, str(path))


class _Table:
    """Values by any of several names, checked: a config may come from a stranger."""

    def __init__(self, path: Path, table: Mapping[str, Any]) -> None:
        self.path, self.table = path, table

    def whole(self, *names: str, default: int | None = None) -> int:
        value = self._first(names, default)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 1 << 31:
            raise UsageError(f"{self.path}: {names[0]}={value!r}; allowed: a whole number above 0")
        return value

    def maybe_whole(self, name: str) -> int | None:
        return None if self.table.get(name) is None else self.whole(name)

    def number(self, *names: str, default: float) -> float:
        value = self._first(names, default)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise UsageError(f"{self.path}: {names[0]}={value!r}; allowed: a number")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        value = self.table.get(name)
        value = default if value is None else value
        if not isinstance(value, bool):
            raise UsageError(f"{self.path}: {name}={value!r}; allowed: true or false")
        return value

    def _first(self, names: tuple[str, ...], default: Any) -> Any:
        found = [self.table[name] for name in names if self.table.get(name) is not None]
        return found[0] if found else default


def _gpt2(table: _Table) -> Published:
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
            activation="gelu_tanh",
            bias=True,
            tie_embeddings=table.flag("tie_word_embeddings", True),
        )
    )


def _bloom(table: _Table) -> Published:
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


def _llama(table: _Table, qk_norm: bool = False) -> ModelConfig:
    heads = table.whole("num_attention_heads")
    rope = table.table.get("rope_parameters")
    theta = rope.get("rope_theta") if isinstance(rope, dict) else None
    return ModelConfig(
        num_layers=table.whole("num_hidden_layers"),
        d_model=table.whole("hidden_size"),
        num_heads=heads,
        num_kv_heads=table.whole("num_key_value_heads", default=heads),
        head_dim=table.maybe_whole("head_dim"),
        d_mlp=table.whole("intermediate_size"),
        vocab_size=table.whole("vocab_size"),
        context=table.whole("max_position_embeddings"),
        norm_eps=table.number("rms_norm_eps", default=1e-6),
        rope_theta=float(theta) if theta else table.number("rope_theta", default=10000.0),
        activation="swiglu",
        tie_embeddings=table.flag("tie_word_embeddings", False),
        qk_norm=qk_norm,
    )


def _plain_llama(table: _Table) -> Published:
    model = _llama(table)
    beside: dict[str, int] = {}
    if table.flag("attention_bias", False):
        beside = qkv_biases(model)
        beside["biases of attention output"] = model.num_layers * model.d_model
    if table.flag("mlp_bias", False):
        beside["biases of feed-forward"] = model.num_layers * (2 * model.mlp_width + model.d_model)
    return Published(model, beside)


def _qwen2(table: _Table) -> Published:
    model = _llama(table)
    return Published(model, qkv_biases(model))


def _qwen3(table: _Table) -> Published:
    model = _llama(table, qk_norm=True)
    beside: dict[str, int] = {}
    if table.flag("attention_bias", False):
        beside = qkv_biases(model)
        beside["biases of attention output"] = model.num_layers * model.d_model
    return Published(model, beside)


FAMILIES: dict[str, Callable[[_Table], Published]] = {
    "gpt2": _gpt2,
    "bloom": _bloom,
    "llama": _plain_llama,
    "mistral": lambda table: Published(_llama(table)),
    "minicpm": lambda table: Published(_llama(table)),
    "qwen2": _qwen2,
    "qwen3": _qwen3,
}
"""`model_type` -> its shape."""
