"""How fast each pair of a head turns with the position, and how that is slowed for long texts."""

import math

import jax
import jax.numpy as jnp

from jaxhpo.errors import UsageError
from jaxhpo.nn.config import ModelConfig

Array = jax.Array


def frequencies(config: ModelConfig) -> tuple[Array, float]:
    """Radians per position f32[H/2], and what cosines and sines are multiplied by.

    Sources: Su et al. 2021 (arXiv 2104.09864); linear: Chen et al. 2023 (arXiv 2306.15595); llama3:
    Grattafiori et al. 2024 (arXiv 2407.21783); yarn: Peng et al. 2023 (arXiv 2309.00071).
    """
    exponent = jnp.arange(0, config.width_of_head, 2, dtype=jnp.float32) / config.width_of_head
    plain = config.rope_theta**-exponent
    rope = config.rope
    if rope.scaling == "linear":
        return plain / rope.factor, 1.0
    if rope.scaling == "llama3":
        return _llama3(config, plain), 1.0
    if rope.scaling == "yarn":
        scale = rope.attention_factor
        return _yarn(config, plain), 1.0 + 0.1 * math.log(rope.factor) if scale is None else scale
    return plain, 1.0


def _original(config: ModelConfig) -> int:
    if config.rope.original_context is None:
        raise UsageError(
            f"model.rope.scaling={config.rope.scaling} needs model.rope.original_context"
        )
    return config.rope.original_context


def _llama3(config: ModelConfig, plain: Array) -> Array:
    """Short waves as they are, long ones stretched, in between a mixture."""
    rope = config.rope
    turns = _original(config) * plain / (2 * math.pi)
    share = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    share = jnp.clip(share, 0.0, 1.0)
    return share * plain + (1.0 - share) * plain / rope.factor


def _yarn(config: ModelConfig, plain: Array) -> Array:
    """The same with a ramp over the number of the pair."""
    rope, width = config.rope, config.width_of_head

    def pair(turns: float) -> float:
        """The pair that turns so often within the original context."""
        waves = _original(config) / (2 * math.pi * turns)
        return width * math.log(waves) / (2 * math.log(config.rope_theta))

    low, high = pair(rope.beta_fast), pair(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    high = high + 0.001 if low == high else high
    share = jnp.clip((jnp.arange(width // 2, dtype=jnp.float32) - low) / (high - low), 0.0, 1.0)
    return share * plain / rope.factor + (1.0 - share) * plain
