"""Shapes of published models, by name: what `jaxhpo size` compares a model with."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxhpo.errors import UsageError
from jaxhpo.nn.config import ModelConfig


@dataclass(frozen=True)
class Published:
    """A model's shape. `beside` are parameters, by part, that a `ModelConfig` has no field for."""

    model: ModelConfig
    beside: Mapping[str, int] = field(default_factory=dict, hash=False)
    source: str = ""


def embedding_norm(model: ModelConfig) -> dict[str, int]:
    """A LayerNorm behind the embedding beside the usual ones, as BLOOM has it."""
    return {"norm of the embedding": 2 * model.d_model}


def gpt(layers: int, width: int, heads: int, context: int, vocabulary: int = 50257) -> ModelConfig:
    """GPT-2 and GPT-3: LayerNorm, learned positions, biases everywhere, tied read-out."""
    return ModelConfig(
        num_layers=layers,
        d_model=width,
        num_heads=heads,
        context=context,
        vocab_size=vocabulary,
        norm="layer",
        norm_eps=1e-5,
        position="learned",
        activation="gelu_tanh",
        bias=True,
    )


def llama(
    layers: int,
    width: int,
    heads: int,
    kv_heads: int,
    mlp: int,
    vocabulary: int,
    context: int,
    *,
    tied: bool = False,
    head_dim: int | None = None,
    qk_norm: bool = False,
    qkv_bias: bool = False,
) -> ModelConfig:
    """Llama and its descendants: RMSNorm, rotary positions, SwiGLU; Qwen 2 biases queries, keys
    and values."""
    return ModelConfig(
        num_layers=layers,
        d_model=width,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        d_mlp=mlp,
        vocab_size=vocabulary,
        context=context,
        activation="swiglu",
        tie_embeddings=tied,
        qk_norm=qk_norm,
        qkv_bias=qkv_bias,
    )


def _bloom() -> Published:
    model = ModelConfig(
        num_layers=70, d_model=14336, num_heads=112, context=2048, vocab_size=250880,
        norm="layer", position="none", activation="gelu_tanh", bias=True,
    )  # fmt: skip
    return Published(model, embedding_norm(model), "Le Scao et al. 2022 (arXiv 2211.05100)")


def _qwen2(source: str, *shape: int, tied: bool) -> Published:
    return Published(llama(*shape, 32768, tied=tied, qkv_bias=True), source=source)


def _qwen3(*shape: int, tied: bool) -> Published:
    model = llama(*shape, 151936, 40960, tied=tied, head_dim=128, qk_norm=True)
    return Published(model, source="Yang et al. 2025 (arXiv 2505.09388)")


_GPT2 = "Radford et al. 2019, Language Models are Unsupervised Multitask Learners"
_GPT3 = "Brown et al. 2020 (arXiv 2005.14165), table 2.1"
_LLAMA2 = "Touvron et al. 2023 (arXiv 2307.09288)"
_LLAMA3 = "Grattafiori et al. 2024 (arXiv 2407.21783), table 3"
_LLAMA32 = "the model's config.json (Meta, 2024)"
_QWEN2 = "Yang et al. 2024 (arXiv 2407.10671), table 1"
_QWEN25 = "Qwen et al. 2024 (arXiv 2412.15115), table 1"
_MISTRAL = "Jiang et al. 2023 (arXiv 2310.06825), table 1"
_MINICPM = "Hu et al. 2024 (arXiv 2404.06395), table 2"

PUBLISHED: dict[str, Published] = {
    "gpt2": Published(gpt(12, 768, 12, 1024), source=_GPT2),
    "gpt2-medium": Published(gpt(24, 1024, 16, 1024), source=_GPT2),
    "gpt2-large": Published(gpt(36, 1280, 20, 1024), source=_GPT2),
    "gpt2-xl": Published(gpt(48, 1600, 25, 1024), source=_GPT2),
    "gpt3": Published(gpt(96, 12288, 96, 2048), source=_GPT3),
    "bloom-176b": _bloom(),
    "llama-2-7b": Published(llama(32, 4096, 32, 32, 11008, 32000, 4096), source=_LLAMA2),
    "llama-2-13b": Published(llama(40, 5120, 40, 40, 13824, 32000, 4096), source=_LLAMA2),
    "llama-2-70b": Published(llama(80, 8192, 64, 8, 28672, 32000, 4096), source=_LLAMA2),
    "llama-3-8b": Published(llama(32, 4096, 32, 8, 14336, 128256, 8192), source=_LLAMA3),
    "llama-3-70b": Published(llama(80, 8192, 64, 8, 28672, 128256, 8192), source=_LLAMA3),
    "llama-3-405b": Published(llama(126, 16384, 128, 8, 53248, 128256, 8192), source=_LLAMA3),
    "llama-3.2-1b": Published(
        llama(16, 2048, 32, 8, 8192, 128256, 131072, tied=True), source=_LLAMA32
    ),
    "llama-3.2-3b": Published(
        llama(28, 3072, 24, 8, 8192, 128256, 131072, tied=True), source=_LLAMA32
    ),
    "mistral-7b": Published(llama(32, 4096, 32, 8, 14336, 32000, 8192), source=_MISTRAL),
    "qwen2-0.5b": _qwen2(_QWEN2, 24, 896, 14, 2, 4864, 151936, tied=True),
    "qwen2-1.5b": _qwen2(_QWEN2, 28, 1536, 12, 2, 8960, 151936, tied=True),
    "qwen2-7b": _qwen2(_QWEN2, 28, 3584, 28, 4, 18944, 152064, tied=False),
    "qwen2-72b": _qwen2(_QWEN2, 80, 8192, 64, 8, 29568, 152064, tied=False),
    "qwen2.5-0.5b": _qwen2(_QWEN25, 24, 896, 14, 2, 4864, 151936, tied=True),
    "qwen2.5-1.5b": _qwen2(_QWEN25, 28, 1536, 12, 2, 8960, 151936, tied=True),
    "qwen2.5-3b": _qwen2(_QWEN25, 36, 2048, 16, 2, 11008, 151936, tied=True),
    "qwen2.5-7b": _qwen2(_QWEN25, 28, 3584, 28, 4, 18944, 152064, tied=False),
    "qwen2.5-14b": _qwen2(_QWEN25, 48, 5120, 40, 8, 13824, 152064, tied=False),
    "qwen2.5-32b": _qwen2(_QWEN25, 64, 5120, 40, 8, 27648, 152064, tied=False),
    "qwen2.5-72b": _qwen2(_QWEN25, 80, 8192, 64, 8, 29568, 152064, tied=False),
    "qwen3-0.6b": _qwen3(28, 1024, 16, 8, 3072, tied=True),
    "qwen3-1.7b": _qwen3(28, 2048, 16, 8, 6144, tied=True),
    "qwen3-4b": _qwen3(36, 2560, 32, 8, 9728, tied=True),
    "qwen3-8b": _qwen3(36, 4096, 32, 8, 12288, tied=False),
    "qwen3-14b": _qwen3(40, 5120, 40, 8, 17408, tied=False),
    "qwen3-32b": _qwen3(64, 5120, 64, 8, 25600, tied=False),
    "minicpm-1.2b": Published(
        llama(52, 1536, 24, 8, 3840, 122753, 4096, tied=True), source=_MINICPM
    ),
    "minicpm-2.4b": Published(
        llama(40, 2304, 36, 36, 5760, 122753, 4096, tied=True), source=_MINICPM
    ),
}
"""Name -> shape."""


def published(name: str) -> Published:
    """The shape of a published model. Raises UsageError naming the nearest."""
    if (found := PUBLISHED.get(name.lower())) is not None:
        return found
    import difflib

    near = difflib.get_close_matches(name.lower(), PUBLISHED, n=1, cutoff=0.5)
    hint = f"perhaps you meant {near[0]}" if near else f"known: {', '.join(PUBLISHED)}"
    raise UsageError(f"{name} is no published model, run directory or folder; {hint}")
