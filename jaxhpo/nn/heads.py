"""What reads classes or numbers off a transformer's hidden states."""

import jax
import jax.numpy as jnp

from jaxhpo.nn.config import HeadConfig, ModelConfig
from jaxhpo.nn.layers import dropout, normal, product
from jaxhpo.nn.losses import cross_entropy

Array = jax.Array
Head = dict[str, Array]


def init_head(config: ModelConfig, outputs: int, key: Array) -> Head:
    """A linear layer f32[D, C] with normal entries of `init_std`, and its offset f32[C]."""
    kernel = normal(config.init_std)(key, (config.d_model, outputs))
    return {"kernel": kernel, "bias": jnp.zeros(outputs)}


def head_tensors(config: ModelConfig, outputs: int) -> dict[str, tuple[int, ...]]:
    """Shape of a head's parameters by path."""
    return {"head/kernel": (config.d_model, outputs), "head/bias": (outputs,)}


def read(
    config: ModelConfig,
    head: HeadConfig,
    params: Head,
    states: Array,
    lengths: Array,
    *,
    rate: Array | None = None,
    key: Array | None = None,
) -> Array:
    """Logits or numbers: f[B, T, D], i32[B] -> f32[B, C]; `rate` drops out what the layer reads.

    Rows are padded on the right; what stands beyond `lengths` is never looked at.
    """
    pooled = dropout(pool(states, lengths, pooling_of(config, head)), rate, key)
    return product(pooled.astype(jnp.float32), params["kernel"]) + params["bias"]


def pooling_of(config: ModelConfig, head: HeadConfig) -> str:
    """How the states of a text become one: where the config leaves it open, the last token's if
    that has seen all others, else their mean."""
    if head.pooling is not None:
        return head.pooling
    return "last" if config.attention == "causal" else "mean"


def pool(states: Array, lengths: Array, pooling: str) -> Array:
    """One state a row: f[B, T, D], i32[B] -> f32[B, D]."""
    states = states.astype(jnp.float32)
    if pooling == "first":
        return states[:, 0]
    if pooling == "last":
        return jnp.take_along_axis(states, (lengths - 1)[:, None, None], 1)[:, 0]
    real = jnp.arange(states.shape[1]) < lengths[:, None]
    total = jnp.where(real[..., None], states, 0.0).sum(1)
    return total / lengths[:, None].astype(jnp.float32)


def class_losses(logits: Array, labels: Array) -> Array:
    """Cross-entropy in nats: f32[B, C], i32[B] -> f32[B]."""
    return cross_entropy(logits, labels)


def square_losses(outputs: Array, labels: Array) -> Array:
    """Squared errors: f32[B, 1], f32[B] -> f32[B]."""
    return jnp.square(outputs[:, 0] - labels)


def weighed(losses: Array, weight: Array | None) -> Array:
    """The mean of weight times loss, f32[]; a weight of zero silences a NaN."""
    if weight is None:
        return losses.mean()
    return jnp.where(weight > 0, losses * weight, 0.0).mean()
