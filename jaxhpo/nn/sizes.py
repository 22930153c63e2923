"""How large a model is and what it costs, by closed formulas; nothing here needs jax."""

import math
from collections.abc import Mapping

from jaxhpo.errors import UsageError
from jaxhpo.nn.config import ModelConfig


def tensors(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter by its path, such as `blocks/mlp/up/kernel`.

    Raises UsageError where `vocab_size` is not set.
    """
    d, vocab = config.d_model, _vocabulary(config)
    found: dict[str, tuple[int, ...]] = {"embed/embedding": (vocab, d)}
    if config.position == "learned":
        found["positions/embedding"] = (config.context, d)
    if config.token_types:
        found["token_types/embedding"] = (config.token_types, d)
    if not config.tie_embeddings:
        found["readout"] = (d, vocab)
    if config.readout_transform:
        found |= {"readout_dense/kernel": (d, d), "readout_dense/bias": (d,)}
        found |= _norm("readout_norm", config) | {"readout_bias": (vocab,)}
    # behind the blocks (pre), or behind the embedding (post)
    found |= _norm("final_norm" if config.norm_position == "pre" else "embed_norm", config)
    found |= {f"blocks/{k}": (config.num_layers, *v) for k, v in _block(config).items()}
    return found


def count_parameters(config: ModelConfig) -> int:
    """Parameters of a model. Raises UsageError where `vocab_size` is not set."""
    return sum(math.prod(shape) for shape in tensors(config).values())


def parameter_bytes(config: ModelConfig, held: Mapping[str, tuple[int, ...]] | None = None) -> int:
    """Bytes of a model's parameters: those of norms in float32, all others in `param_dtype`.

    `held` are the shapes of the parts of them on one device, by path (default: all).
    """
    width = 2 if config.param_dtype == "bfloat16" else 4
    return sum(
        (4 if "norm/" in name else width) * math.prod(shape)
        for name, shape in (tensors(config) if held is None else held).items()
    )


def parts(config: ModelConfig) -> dict[str, int]:
    """Parameters by part; without those that a model lacks. Raises UsageError as `tensors` does."""
    found: dict[str, int] = {}
    for name, shape in tensors(config).items():
        part = next(part for word, part in _PARTS if word in name)
        found[part] = found.get(part, 0) + math.prod(shape)
    return found


_PARTS = (
    ("norm", "norms"),
    ("embed/", "token embedding"),
    ("positions/", "positions"),
    ("token_types/", "token types"),
    ("readout", "read-out"),
    ("attention", "attention"),
    ("mlp", "feed-forward"),
)
"""What a parameter's path contains -> its part; the first that fits."""


def flops_per_token(config: ModelConfig, sequence: int, recompute: bool = False) -> float:
    """Floating-point operations per trained token: 6 N + 12 L H Q T, forward and backward.

    With `recompute` the forward pass is made twice: 8 N + 16 L H Q T. N leaves out the table of
    learned positions, which is looked up; the attention term is the full square. Source: Chowdhery
    et al. 2022 (arXiv 2204.02311), appendix B.
    """
    passes = 4.0 if recompute else 3.0
    return passes * forward_flops_per_token(config, sequence)


def forward_flops_per_token(config: ModelConfig, sequence: int) -> float:
    """Operations to read or write one token that looks at `sequence` others: 2 N + 4 L H Q T."""
    rows = config.context if config.position == "learned" else 0
    looked_up = (rows + (config.token_types or 0)) * config.d_model
    counted = count_parameters(config) - looked_up
    return 2.0 * counted + attention_flops_per_token(config, sequence)


def attention_flops_per_token(config: ModelConfig, sequence: int) -> float:
    """The part of `forward_flops_per_token` that grows with the sequence: 4 L H Q T."""
    return 4.0 * config.num_layers * config.num_heads * config.width_of_head * sequence


def cache_bytes_per_token(config: ModelConfig) -> int:
    """Bytes of keys and values that decoding keeps of one token, in the compute dtype."""
    width = 2 if config.compute_dtype == "bfloat16" else 4
    return 2 * config.num_layers * config.kv_heads * config.width_of_head * width


CHUNK = 256
"""Tokens of a prompt that are read at once: their scores against the whole cache live together."""


def reading_bytes(config: ModelConfig, batch: int, prompt: int, capacity: int) -> int:
    """Bytes of attention scores, and of their softmax, while prompts are read into a cache."""
    return 2 * 4 * batch * config.num_heads * min(prompt, CHUNK) * capacity


def activation_bytes(
    config: ModelConfig,
    batch: int,
    sequence: int,
    remat: bool,
    unroll: bool = False,
    fused: bool = False,
    tensor: int = 1,
) -> int:
    """Bytes that a backward pass holds at its peak, beside gradients, on `batch` x `sequence`.

    A block keeps its input and the results of its matrix products; laid out one after another
    (`unroll`) also what lies between them, about twice as much again. With `remat` it keeps its
    input, and one block at a time is rebuilt. To these come the logits, or what a block needs in
    float32 while it is differentiated, whichever is more. `fused` attention keeps no scores.
    `tensor` devices share heads, the width of the feed-forward layer, and the vocabulary if they
    divide it.
    Within 15% of what XLA's CPU compiler says.
    """
    tokens, width = batch * sequence, 2 if config.compute_dtype == "bfloat16" else 4
    scores, mlp = 0 if fused else config.num_heads * sequence // tensor, config.mlp_width // tensor
    projected = 2 * (config.num_heads + config.kv_heads) * config.width_of_head // tensor
    gates = 2 if config.activation == "swiglu" else 1
    products = projected + scores + 2 * config.d_model + gates * mlp
    blocks = 1 if remat else config.num_layers
    kept = width * (config.num_layers * config.d_model + blocks * products)
    vocabulary = _vocabulary(config)
    logits = 4 * LOGITS_COPIES * vocabulary // (1 if vocabulary % tensor else tensor)
    if unroll and not remat:
        passing = 2 * width * config.num_layers * products
    else:
        passing = 4 * round(BLOCK_COPIES * (mlp + config.d_model) + SCORES_COPIES * scores)
    rounds = width == 2 and config.param_dtype == "float32"
    # the weights as bfloat16
    rounded = width * count_parameters(config) // tensor if rounds else 0
    return tokens * (kept + max(logits, passing)) + rounded


LOGITS_COPIES = 2
"""Arrays of the logits' size that live at once: the logits and their gradient."""

BLOCK_COPIES = 5.6
"""Arrays of a block's width, in float32, that live at once while it is differentiated: measured."""

SCORES_COPIES = 2.2
"""The same for attention scores."""


def _block(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    d, mlp, head = config.d_model, config.mlp_width, config.width_of_head
    q, kv = config.num_heads * head, config.kv_heads * head
    widths = {"attention/query": (d, q), "attention/key": (d, kv), "attention/value": (d, kv)}
    widths |= {"attention/out": (q, d), "mlp/up": (d, mlp), "mlp/down": (mlp, d)}
    if config.activation == "swiglu":
        widths["mlp/gate"] = (d, mlp)
    found: dict[str, tuple[int, ...]] = {f"{k}/kernel": shape for k, shape in widths.items()}
    biased = {
        "attention/query": config.has_qkv_bias,
        "attention/key": config.has_qkv_bias,
        "attention/value": config.has_qkv_bias,
        "attention/out": config.has_out_bias,
    }
    for name, shape in widths.items():
        if biased.get(name, config.has_mlp_bias):
            found[f"{name}/bias"] = shape[1:]
    if config.qk_norm:
        found |= {f"attention/{name}_norm/scale": (head,) for name in ("query", "key")}
    return found | _norm("attention_norm", config) | _norm("mlp_norm", config)


def _norm(name: str, config: ModelConfig) -> dict[str, tuple[int, ...]]:
    found = {f"{name}/scale": (config.d_model,)}
    if config.norm == "layer" and config.bias:
        found[f"{name}/bias"] = (config.d_model,)
    return found


def _vocabulary(config: ModelConfig) -> int:
    if config.vocab_size is None:
        raise UsageError("model.vocab_size is not set; give the tokenizer's number of tokens")
    return config.vocab_size
