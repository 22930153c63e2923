"""Self-attention: projections, rotary positions, and which kernel does the work."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jaxhpo.nn.config import ModelConfig
from jaxhpo.nn.constraints import constrain
from jaxhpo.nn.layers import Norm, dropout, linear
from jaxhpo.nn.rope import frequencies

Array = jax.Array


class Attention(nnx.Module):
    """Multi-head, grouped or multi-query attention; f[B, T, D] -> f[B, T, D].

    Queries, keys and values are separate matrices: rules per component see each one, and one fused
    matrix is no faster (measured on a CPU at D=64).
    """

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs) -> None:
        self.config = config
        width = config.width_of_head
        d, heads, kv_heads = config.d_model, config.num_heads * width, config.kv_heads * width
        bias = config.has_qkv_bias
        self.query = linear(config, d, heads, rngs, bias=bias)
        self.key = linear(config, d, kv_heads, rngs, bias=bias)
        self.value = linear(config, d, kv_heads, rngs, bias=bias)
        self.out = linear(config, heads, d, rngs, bias=config.has_out_bias, to_residual=True)
        self.query_norm = Norm(config, width, center=False) if config.qk_norm else None
        self.key_norm = Norm(config, width, center=False) if config.qk_norm else None

    def __call__(
        self,
        x: Array,
        rotation: Array | None,
        rate: Array | None,
        key: Array | None,
        real: Array | None = None,
    ) -> Array:
        mixed = attend(
            *self._projected(x, rotation),
            causal=self.config.attention == "causal",
            window=self.config.window,
            real=real,
            softcap=self.config.attention_softcap,
            rate=rate,
            key=key,
        )
        return self.out(constrain("heads", mixed).reshape(*x.shape[:2], -1))

    def extend(
        self, x: Array, rotation: Array | None, memory: "Memory", slots: Array, seen: Array
    ) -> "tuple[Array, Memory]":
        """The same for tokens that follow those in memory, f[B, T, D], and the memory with them.

        `slots` i32[B], or i32[] where all rows are as long, is where the first one goes; `seen`
        bool[B, T, C] says what each may look at.
        """
        q, k, v = self._projected(x, rotation)
        memory = Memory(*(remember(*pair, slots) for pair in zip(memory, (k, v), strict=True)))
        mixed = recall(q, memory, seen, self.config.attention_softcap)
        return self.out(mixed.reshape(*x.shape[:2], -1)), memory

    def _projected(self, x: Array, rotation: Array | None) -> tuple[Array, Array, Array]:
        heads = (*x.shape[:2], -1, self.config.width_of_head)
        projected = (f(x).reshape(heads) for f in (self.query, self.key, self.value))
        q, k, v = (constrain("heads", each) for each in projected)
        if self.query_norm is not None and self.key_norm is not None:
            q, k = self.query_norm(q), self.key_norm(k)
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        return q, k, v


def attend(
    q: Array,
    k: Array,
    v: Array,
    *,
    causal: bool,
    window: int | None = None,
    real: Array | None = None,
    softcap: float | None = None,
    rate: Array | None = None,
    key: Array | None = None,
) -> Array:
    """Values mixed by softmax(q k / sqrt(H)): f[B, T, N, H], f[B, T, K, H] twice -> f[B, T, N, H].

    A position sees the last `window` ones of those before it, itself included, and of these the
    ones that are `real` bool[B, T], or bool[B, T, T] where that depends on who looks (the first
    T). The softmax is float32. What runs is chosen statically:
    `jax.nn.dot_product_attention` on accelerators; a plain path of our own for dropout on the
    weights and for the soft-cap, which it lacks, and on a CPU, where a whole training step is 7%
    faster with it (0.1M parameters).
    """
    plain = softcap is None and (rate is None or key is None)
    if real is not None and real.ndim == 2:
        real = real[:, None]
    if plain and jax.default_backend() != "cpu":
        return jax.nn.dot_product_attention(
            q,
            k,
            v,
            mask=None if real is None else real[:, None],
            is_causal=causal,
            local_window_size=None if window is None else (window - 1, 0),
            # XLA's takes any mask
            implementation=_kernel(q.dtype, q.shape[-1]) if real is None else "xla",
        )
    shape, grouped = q.shape, q.shape[2] != k.shape[2]
    if grouped:
        q = q.reshape(*shape[:2], k.shape[2], -1, shape[3])
    g = "g" if grouped else ""  # an axis of length one would cost as much as a real one
    scores = jnp.einsum(f"btk{g}h,bskh->bk{g}ts", q, k, preferred_element_type=jnp.float32)
    scores = scores * shape[3] ** -0.5
    if softcap is not None:
        scores = softcap * jnp.tanh(scores / softcap)
    least = jnp.finfo(jnp.float32).min
    if causal:
        seen = jnp.tril(jnp.ones((shape[1], shape[1]), bool))
        if window is not None:
            seen = jnp.triu(seen, 1 - window)
        scores = jnp.where(seen, scores, least)
    if real is not None:
        scores = jnp.where(jnp.expand_dims(real, tuple(range(1, scores.ndim - 2))), scores, least)
    weights = dropout(jax.nn.softmax(scores), rate, key).astype(v.dtype)
    return jnp.einsum(f"bk{g}ts,bskh->btk{g}h", weights, v).reshape(shape)


class Memory(NamedTuple):
    """Keys and values of one layer, f[B, K, C, H] each: heads that queries share are there once."""

    keys: Array
    values: Array


def remember(kept: Array, new: Array, slots: Array) -> Array:
    """f[B, K, C, H] with f[B, T, K, H] written from `slots` on."""
    new = new.swapaxes(1, 2).astype(kept.dtype)
    if slots.ndim == 0:
        return jax.lax.dynamic_update_slice(kept, new, (0, 0, slots, 0))
    write = lambda row, part, slot: jax.lax.dynamic_update_slice(row, part, (0, slot, 0))
    return jax.vmap(write)(kept, new, slots)


def recall(q: Array, memory: Memory, seen: Array, softcap: float | None = None) -> Array:
    """`attend` to what is remembered: f[B, T, N, H], bool[B, T, C] -> f[B, T, N, H]."""
    batch, length, _, width = q.shape
    heads = memory.keys.shape[1]
    grouped = q.reshape(batch, length, heads, -1, width).transpose(0, 2, 3, 1, 4)
    grouped = grouped.reshape(batch, heads, -1, width)  # queries of a group and all its positions
    scores = jnp.einsum("bkqh,bksh->bkqs", grouped, memory.keys, preferred_element_type=jnp.float32)
    scores = scores * width**-0.5
    if softcap is not None:
        scores = softcap * jnp.tanh(scores / softcap)
    scores = scores.reshape(batch, heads, -1, length, scores.shape[-1])
    scores = jnp.where(seen[:, None, None], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores).astype(q.dtype).reshape(batch, heads, -1, scores.shape[-1])
    mixed = jnp.einsum("bkqs,bksh->bkqh", weights, memory.values)
    mixed = mixed.reshape(batch, heads, -1, length, width).transpose(0, 3, 1, 2, 4)
    return mixed.reshape(q.shape)


def _kernel(dtype: jnp.dtype, width: int) -> Literal["cudnn", "xla"]:
    """cuDNN's flash attention where it exists: it must be asked for by name."""
    if dtype != jnp.bfloat16 or width % 8 or width > 128 or jax.default_backend() != "gpu":
        return "xla"
    device = jax.local_devices()[0]
    nvidia = "cuda" in device.client.platform_version.lower()
    return "cudnn" if nvidia and float(device.compute_capability) >= 8.0 else "xla"


def rotation_of(config: ModelConfig, positions: Array) -> Array | None:
    """Cosines and sines of the rotary angles, None for other kinds of positions.

    Positions [T] give f32[2, T, 1, H/2], and positions [B, T] give f32[2, B, T, 1, H/2].
    """
    if config.position != "rotary":
        return None
    turns, scale = frequencies(config)
    angles = positions.astype(jnp.float32)[..., None] * turns
    rotation = jnp.stack([jnp.cos(angles), jnp.sin(angles)])[..., None, :]
    return rotation if scale == 1.0 else rotation * scale


def rotate(x: Array, rotation: Array) -> Array:
    """f[B, T, N, H] turned by position, pairs (i, i + H/2) as in Llama (Su et al., 2104.09864)."""
    cos, sin = rotation
    first, second = jnp.split(x.astype(jnp.float32), 2, -1)
    turned = [first * cos - second * sin, second * cos + first * sin]
    return jnp.concatenate(turned, -1).astype(x.dtype)
