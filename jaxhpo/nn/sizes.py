"""How large a model is and what it costs, by closed formulas; nothing here needs jax."""

import math

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
    if not config.tie_embeddings:
        found["readout"] = (d, vocab)
    # behind the blocks (pre), or behind the embedding (post)
    found |= _norm("final_norm" if config.norm_position == "pre" else "embed_norm", config)
    found |= {f"blocks/{k}": (config.num_layers, *v) for k, v in _block(config).items()}
    return found


def count_parameters(config: ModelConfig) -> int:
    """Parameters of a model. Raises UsageError where `vocab_size` is not set."""
    return sum(math.prod(shape) for shape in tensors(config).values())


def parameter_bytes(config: ModelConfig) -> int:
    """Bytes of a model's parameters: those of norms in float32, all others in `param_dtype`."""
    width = 2 if config.param_dtype == "bfloat16" else 4
    return sum(
        (4 if "norm/" in name else width) * math.prod(shape)
        for name, shape in tensors(config).items()
    )


def flops_per_token(config: ModelConfig, sequence: int) -> float:
    """Floating-point operations per trained token: 6 N + 12 L H Q T, forward and backward.

    N leaves out the table of learned positions, which is looked up; the attention term is the full
    square. Source: Chowdhery et al. 2022 (arXiv 2204.02311), appendix B.
    """
    positions = config.context * config.d_model if config.position == "learned" else 0
    width = config.num_heads * config.width_of_head
    return (
        6.0 * (count_parameters(config) - positions) + 12.0 * config.num_layers * width * sequence
    )


def activation_bytes(
    config: ModelConfig, batch: int, sequence: int, remat: bool, unroll: bool = False
) -> int:
    """Bytes that the backward pass of one member holds at its peak, on `batch` x `sequence` tokens.

    A block keeps its input and the results of its matrix products; laid out one after another
    (`unroll`) also what lies between them, about as much again. With `remat` it keeps its input,
    and one block at a time is rebuilt. Beside them stand the logits and their gradient, and what a
    block needs in float32 while it is differentiated. Within 20% of what XLA's CPU compiler says.
    """
    tokens, width = batch * sequence, 2 if config.compute_dtype == "bfloat16" else 4
    scores, mlp = config.num_heads * sequence, config.mlp_width
    projected = 2 * (config.num_heads + config.kv_heads) * config.width_of_head
    gates = 2 if config.activation == "swiglu" else 1
    products = projected + scores + 2 * config.d_model + gates * mlp
    between = products if unroll or remat else 0
    blocks = 1 if remat else config.num_layers
    kept = config.num_layers * config.d_model + blocks * (products + between)
    logits = LOGITS_COPIES * 4 * _vocabulary(config)
    block = BLOCK_COPIES * 4 * (mlp + scores + config.d_model)
    return tokens * (kept * width + logits + block)


LOGITS_COPIES = 2
"""Arrays of the logits' size that live at once: the logits and their gradient."""

BLOCK_COPIES = 2
"""Arrays of a block's widest results, in float32, that live at once while it is differentiated."""


def _block(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    d, mlp, head = config.d_model, config.mlp_width, config.width_of_head
    q, kv = config.num_heads * head, config.kv_heads * head
    widths = {"attention/query": (d, q), "attention/key": (d, kv), "attention/value": (d, kv)}
    widths |= {"attention/out": (q, d), "mlp/up": (d, mlp), "mlp/down": (mlp, d)}
    if config.activation == "swiglu":
        widths["mlp/gate"] = (d, mlp)
    found: dict[str, tuple[int, ...]] = {f"{k}/kernel": shape for k, shape in widths.items()}
    if config.bias:
        found |= {f"{name}/bias": shape[1:] for name, shape in widths.items()}
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
