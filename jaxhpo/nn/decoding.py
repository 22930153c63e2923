"""Text from a model: plain sampling, recomputing a sliding window for every token."""

import jax
import jax.numpy as jnp

from jaxhpo.errors import UsageError
from jaxhpo.nn.config import ModelConfig
from jaxhpo.nn.transformer import Params, apply

Array = jax.Array


def sample(
    config: ModelConfig,
    params: Params,
    prompt: Array,
    length: int,
    temperature: Array | float,
    key: Array,
    unroll: bool | int = 1,
) -> Array:
    """`length` tokens that continue the prompt: i32[N] -> i32[length].

    The model sees the last `context` tokens, at positions counted from the window's start. The
    temperature is traced; zero takes the likeliest token. Raises UsageError for an empty prompt
    and for a bidirectional model.
    """
    if config.attention == "bidirectional":
        raise UsageError("model.attention=bidirectional cannot be sampled from; train it causal")
    if prompt.shape[0] < 1:
        raise UsageError("the prompt is empty; give at least one token")
    prompt = prompt[-config.context :].astype(jnp.int32)
    # the window is filled from the left: what lies right of its last token is not yet seen
    window = jnp.zeros(config.context, jnp.int32).at[: prompt.shape[0]].set(prompt)

    def step(carry: tuple[Array, Array], key: Array) -> tuple[tuple[Array, Array], Array]:
        window, filled = carry
        logits = apply(config, params, window[None], unroll=unroll)[0, filled - 1]
        token = _draw(logits, jnp.asarray(temperature, jnp.float32), key)
        full = filled == config.context
        window = jnp.where(full, jnp.roll(window, -1), window)
        filled = jnp.where(full, filled, filled + 1)
        return (window.at[filled - 1].set(token), filled), token

    start = window, jnp.int32(prompt.shape[0])
    return jax.lax.scan(step, start, jax.random.split(key, length))[1]


def _draw(logits: Array, temperature: Array, key: Array) -> Array:
    likeliest = jnp.argmax(logits).astype(jnp.int32)
    drawn = jax.random.categorical(key, logits / jnp.where(temperature > 0, temperature, 1.0))
    return jnp.where(temperature > 0, drawn.astype(jnp.int32), likeliest)
