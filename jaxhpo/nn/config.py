"""What a model is (static) and how it is regularised (traced)."""

from dataclasses import dataclass, field
from typing import Literal, get_args, get_origin, get_type_hints

from jaxhpo.errors import UsageError

Rate = float | tuple[float, ...]
Scaling = Literal["none", "linear", "llama3", "yarn"]


@dataclass(frozen=True)
class RopeConfig:
    """Rotary wavelengths stretched for contexts longer than a model began with."""

    scaling: Scaling = "none"
    """which wavelengths are stretched: all alike (linear), or the long ones (llama3, yarn)"""
    factor: float = 1.0
    """how far they are stretched"""
    original_context: int | None = None
    """context that the model began with; llama3 and yarn need it"""
    low_freq_factor: float = 1.0
    """of llama3: wavelengths above original_context over it are stretched in full"""
    high_freq_factor: float = 4.0
    """of llama3: wavelengths below original_context over it are left alone"""
    beta_fast: float = 32.0
    """of yarn: pairs that turn so often within original_context are left alone"""
    beta_slow: float = 1.0
    """of yarn: pairs that turn no more often than that are stretched in full"""
    truncate: bool = True
    """of yarn: round the bounds between the two to whole pairs"""
    attention_factor: float | None = None
    """of yarn: multiplies cosines and sines (default: 1 + 0.1 ln factor)"""

    def __post_init__(self) -> None:
        allowed = get_args(Scaling)
        if self.scaling not in allowed:
            raise UsageError(f"model.rope.scaling={self.scaling}; allowed: {', '.join(allowed)}")
        if not 1.0 <= self.factor < float("inf"):
            raise UsageError(f"model.rope.factor={self.factor}; allowed: 1 or more")
        if self.original_context is not None:
            _at_least_one("model.rope.original_context", self.original_context)
        elif self.scaling in ("llama3", "yarn"):
            raise UsageError(f"model.rope.scaling={self.scaling} needs model.rope.original_context")
        for low, high in (("low_freq_factor", "high_freq_factor"), ("beta_slow", "beta_fast")):
            if not 0.0 < getattr(self, low) < getattr(self, high) < float("inf"):
                raise UsageError(
                    f"model.rope.{low}={getattr(self, low)} and {high}={getattr(self, high)}; "
                    "allowed: above 0, the second above the first"
                )
        if self.attention_factor is not None and not 0.0 < self.attention_factor < float("inf"):
            raise UsageError(
                f"model.rope.attention_factor={self.attention_factor}; allowed: above 0"
            )


@dataclass(frozen=True)
class ModelConfig:
    """Shape of a decoder or encoder transformer; every value is static. None means derived."""

    num_layers: int = 2
    """blocks"""
    d_model: int = 64
    """width of the residual stream"""
    num_heads: int = 4
    """query heads"""
    num_kv_heads: int | None = None
    """key/value heads: num_heads (the default), 1 (multi-query) or a divisor between (grouped)"""
    head_dim: int | None = None
    """width of one head (default: d_model / num_heads)"""
    d_mlp: int | None = None
    """width of the feed-forward layer (default: 4 d_model; swiglu 8/3 d_model, rounded up to 8s)"""
    vocab_size: int | None = None
    """tokens (default: the tokenizer's)"""
    context: int = 64
    """tokens in one training sequence"""
    norm: Literal["rms", "layer"] = "rms"
    """RMSNorm or LayerNorm"""
    norm_position: Literal["pre", "post"] = "pre"
    """before the branch (GPT-2, Llama) or after it, on the sum (BERT; also norms the embedding)"""
    norm_eps: float = 1e-6
    """added to the variance"""
    attention: Literal["causal", "bidirectional"] = "causal"
    """what a position may see"""
    window: int | None = None
    """tokens that a causal position sees, itself the last (default: all before it; Mistral)"""
    position: Literal["rotary", "learned", "none"] = "rotary"
    """how positions are told apart"""
    token_types: int | None = None
    """kinds of segments told apart by an embedding (default: none; BERT has 2)"""
    rope_theta: float = 10000.0
    """base of the rotary wavelengths"""
    rope: RopeConfig = field(default_factory=RopeConfig)
    """rotary wavelengths of models whose context was made longer"""
    activation: Literal["gelu", "gelu_tanh", "swiglu"] = "gelu"
    """feed-forward non-linearity; swiglu has a gate"""
    bias: bool = False
    """biases in projections and in LayerNorm"""
    qkv_bias: bool | None = None
    """biases of queries, keys and values (default: as bias; Qwen2 has these alone)"""
    out_bias: bool | None = None
    """biases of the projection out of attention (default: as bias)"""
    mlp_bias: bool | None = None
    """biases of the feed-forward layer (default: as bias)"""
    tie_embeddings: bool = True
    """read-out is the transposed embedding"""
    readout_transform: bool = False
    """a dense layer, gelu and a norm before the read-out and a bias after it (BERT)"""
    qk_norm: bool = False
    """RMSNorm on each head of queries and keys (Qwen3)"""
    logit_softcap: float | None = None
    """tanh cap on the logits (Gemma 2)"""
    attention_softcap: float | None = None
    """tanh cap on the attention scores"""
    init_std: float = 0.02
    """of every matrix; those that write to the residual stream are divided by sqrt(2 num_layers)"""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """of activations and matrix products; norms, softmax and loss stay float32"""
    param_dtype: Literal["float32", "bfloat16"] = "float32"
    """of matrices, embeddings and biases; gains and offsets of norms stay float32"""
    remat: bool = False
    """recompute each block in the backward pass instead of keeping its activations"""

    def __post_init__(self) -> None:
        for name in ("num_layers", "d_model", "num_heads", "context"):
            _at_least_one(f"model.{name}", getattr(self, name))
        for name in ("num_kv_heads", "head_dim", "d_mlp", "vocab_size", "window", "token_types"):
            if getattr(self, name) is not None:
                _at_least_one(f"model.{name}", getattr(self, name))
        for name in ("rope_theta", "init_std", "logit_softcap", "attention_softcap"):
            value = getattr(self, name)
            if value is not None and not 0.0 < value < float("inf"):
                raise UsageError(f"model.{name}={value}; allowed: above 0")
        if not 0.0 <= self.norm_eps < float("inf"):
            raise UsageError(f"model.norm_eps={self.norm_eps}; allowed: 0 or more")
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise UsageError(
                    f"model.{name}={getattr(self, name)}; allowed: {', '.join(allowed)}"
                )
        if self.head_dim is None and self.d_model % self.num_heads:
            near = [n for n in range(1, self.d_model + 1) if self.d_model % n == 0]
            near = sorted(near, key=lambda n: abs(n - self.num_heads))[:2]
            raise UsageError(
                f"model.d_model={self.d_model} is not a multiple of "
                f"model.num_heads={self.num_heads}; try num_heads "
                f"{' or '.join(map(str, sorted(near)))}, or give model.head_dim"
            )
        if self.num_heads % self.kv_heads:
            divisors = [n for n in range(1, self.num_heads + 1) if self.num_heads % n == 0]
            raise UsageError(
                f"model.num_heads={self.num_heads} is not a multiple of model.num_kv_heads="
                f"{self.kv_heads}; allowed: {', '.join(map(str, divisors))}"
            )
        if self.window is not None and self.attention != "causal":
            raise UsageError(
                f"model.window={self.window} with model.attention={self.attention}; "
                "allowed: with causal attention"
            )
        if self.rope.scaling != "none" and self.position != "rotary":
            raise UsageError(
                f"model.rope.scaling={self.rope.scaling} with model.position={self.position}; "
                "allowed: with rotary positions"
            )
        if self.position == "rotary" and self.width_of_head % 2:
            raise UsageError(
                f"model.head_dim={self.width_of_head} is odd, and rotary positions need pairs; "
                "use an even head_dim or model.position learned"
            )

    @property
    def kv_heads(self) -> int:
        return self.num_heads if self.num_kv_heads is None else self.num_kv_heads

    @property
    def has_qkv_bias(self) -> bool:
        return self.bias if self.qkv_bias is None else self.qkv_bias

    @property
    def has_out_bias(self) -> bool:
        return self.bias if self.out_bias is None else self.out_bias

    @property
    def has_mlp_bias(self) -> bool:
        return self.bias if self.mlp_bias is None else self.mlp_bias

    @property
    def width_of_head(self) -> int:
        return self.d_model // self.num_heads if self.head_dim is None else self.head_dim

    @property
    def mlp_width(self) -> int:
        if self.d_mlp is not None:
            return self.d_mlp
        if self.activation == "swiglu":
            return -(-8 * self.d_model // 3 // 8) * 8
        return 4 * self.d_model


@dataclass(frozen=True)
class DropoutConfig:
    """Probabilities of zeroing, traced; a tuple: one per layer. Zero and not searched: no code."""

    embedding: float = 0.0
    """after the embedding"""
    attention: Rate = 0.0
    """on the attention weights"""
    residual: Rate = 0.0
    """on each branch before it joins the residual stream"""
    mlp: Rate = 0.0
    """inside the feed-forward layer, after the non-linearity"""

    def __post_init__(self) -> None:
        for name in ("embedding", "attention", "residual", "mlp"):
            rates = getattr(self, name)
            for rate in rates if isinstance(rates, tuple) else (rates,):
                if not 0.0 <= rate < 1.0:
                    raise UsageError(f"dropout.{name}={rate}; allowed: 0 <= p < 1")


@dataclass(frozen=True)
class LossConfig:
    """Terms of the training loss, traced. Zero and not searched: compiled out."""

    label_smoothing: float = 0.0
    """probability mass spread evenly over the vocabulary"""
    z_loss: float = 0.0
    """weight of the squared log-partition, keeps logits from drifting (PaLM: 1e-4)"""

    def __post_init__(self) -> None:
        if not 0.0 <= self.label_smoothing < 1.0:
            raise UsageError(f"loss.label_smoothing={self.label_smoothing}; allowed: 0 <= s < 1")
        if self.z_loss < 0.0:
            raise UsageError(f"loss.z_loss={self.z_loss}; allowed: 0 or more")


@dataclass(frozen=True)
class HeadConfig:
    """What reads a class or a number off the hidden states."""

    pooling: Literal["last", "mean", "first"] | None = None
    """state that is read: the last token's, the mean of all, or the first one's (default: last of
    a causal model, mean of a bidirectional one)"""
    dropout: float = 0.0
    """probability of zeroing on what the head reads; traced"""

    def __post_init__(self) -> None:
        if self.pooling not in (None, "last", "mean", "first"):
            raise UsageError(f"head.pooling={self.pooling}; allowed: last, mean, first")
        if not 0.0 <= self.dropout < 1.0:
            raise UsageError(f"head.dropout={self.dropout}; allowed: 0 <= p < 1")


HEAD_TRACED = frozenset({"dropout"})
"""Fields of a head whose values are arrays."""


@dataclass(frozen=True)
class SamplingConfig:
    """How a next token is chosen. Numbers are traced; names and meaning are transformers'."""

    temperature: float = 0.8
    """logits are divided by it"""
    top_k: int = 0
    """keep the k likeliest tokens; 0 keeps all"""
    top_p: float = 1.0
    """keep the likeliest tokens that together have this probability"""
    min_p: float = 0.0
    """keep the tokens at least this likely, as a share of the likeliest one's probability"""
    repetition_penalty: float = 1.0
    """make tokens that the text already has less likely (above 1) or likelier (below 1)"""
    greedy: bool = False
    """always take the likeliest token; temperature, top-k, top-p and min-p are not looked at"""

    def __post_init__(self) -> None:
        if not 0.0 < self.temperature < float("inf"):
            raise UsageError(
                f"temperature={self.temperature}; allowed: above 0 (greedy takes the likeliest)"
            )
        if self.top_k < 0:
            raise UsageError(f"top_k={self.top_k}; allowed: 1 or more, or 0 to keep all")
        if not 0.0 < self.top_p <= 1.0:
            raise UsageError(f"top_p={self.top_p}; allowed: above 0, up to 1")
        if not 0.0 <= self.min_p <= 1.0:
            raise UsageError(f"min_p={self.min_p}; allowed: 0 to 1")
        if not 0.0 < self.repetition_penalty < float("inf"):
            raise UsageError(f"repetition_penalty={self.repetition_penalty}; allowed: above 0")


@dataclass(frozen=True)
class BeamConfig:
    """Beam search, with transformers' rules; it draws nothing."""

    num_beams: int = 4
    """texts that are followed at once"""
    length_penalty: float = 1.0
    """a text's score is its log-probability over its length to this power: above 0 favours long"""
    early_stopping: Literal["false", "true", "never"] = "false"
    """stop when num_beams texts have ended (true), when by an estimate none can become better
    (false), or when none can for sure (never)"""
    repetition_penalty: float = 1.0
    """make tokens that the text already has less likely (above 1) or likelier (below 1)"""

    def __post_init__(self) -> None:
        _at_least_one("num_beams", self.num_beams)
        if not abs(self.length_penalty) < float("inf"):
            raise UsageError(f"length_penalty={self.length_penalty}; allowed: a finite number")
        if self.early_stopping not in ("false", "true", "never"):
            raise UsageError(f"early_stopping={self.early_stopping}; allowed: false, true, never")
        if not 0.0 < self.repetition_penalty < float("inf"):
            raise UsageError(f"repetition_penalty={self.repetition_penalty}; allowed: above 0")


_CHOICES = {
    name: get_args(kind)
    for name, kind in get_type_hints(ModelConfig).items()
    if get_origin(kind) is Literal
}


def _at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise UsageError(f"{name}={value}; allowed: 1 or more")
