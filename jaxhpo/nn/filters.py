"""From logits to the next token: penalty, temperature, top-k, top-p, min-p, and the draw.

Order and rules are those of transformers 5: each filter sets what it removes to -inf, so that the
next one sees the renormalised distribution. All values are traced, one a row.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jaxhpo.nn.config import SamplingConfig

Array = jax.Array

BLOCK = 128
"""Tokens summed together: two short sums instead of a long one."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Sampling:
    """Values f32[B] or i32[B] of each row; None is a filter that no row uses: compiled out.

    All None is the likeliest token. `tail` is 1 - p of top-p, which float32 would round near one.
    """

    temperature: Array | None = None
    top_k: Array | None = None
    tail: Array | None = None
    min_p: Array | None = None
    penalty: Array | None = None

    @property
    def greedy(self) -> bool:
        return self.temperature is None


OFF = {"top_k": 0, "tail": 0.0, "min_p": 0.0, "penalty": 1.0}
"""The value at which a filter keeps everything."""


def lower(rows: Sequence[SamplingConfig]) -> Sampling:
    """Rows (numpy) of settings, all of which draw or none. A filter is there if a row uses it."""
    if len({row.greedy for row in rows}) > 1:
        raise ValueError("some rows are greedy and some are not: they are two programs")
    values = {
        "temperature": np.float32([row.temperature for row in rows]),
        "top_k": np.int32([row.top_k for row in rows]),
        "tail": np.float32([1.0 - row.top_p for row in rows]),
        "min_p": np.float32([row.min_p for row in rows]),
        "penalty": np.float32([row.repetition_penalty for row in rows]),
    }
    used = {name for name, off in OFF.items() if np.any(values[name] != off)} | {"temperature"}
    if rows[0].greedy:
        used &= {"penalty"}
    return Sampling(**{name: value for name, value in values.items() if name in used})


def process(logits: Array, sampling: Sampling, mentioned: Array | None) -> Array:
    """The logits f32[B, V] to draw from. `mentioned` bool[B, V] are the tokens of each text."""
    if sampling.penalty is not None and mentioned is not None:
        logits = penalise(logits, sampling.penalty, mentioned)
    if sampling.temperature is not None:
        logits = logits / sampling.temperature[:, None]
    return keep_most(logits, sampling)


def penalise(logits: Array, penalty: Array, mentioned: Array) -> Array:
    """Tokens already mentioned made less likely: logits (or log-probabilities) f32[B, V] divided by
    the penalty where positive, else multiplied (Keskar et al. 2019, arXiv 1909.05858)."""
    penalty = penalty[:, None]
    lowered = jnp.where(logits < 0, logits * penalty, logits / penalty)
    return jnp.where(mentioned, lowered, logits)


def keep_most(logits: Array, sampling: Sampling) -> Array:
    """top-k, then top-p, then min-p. Each keeps the likeliest token."""
    if sampling.top_k is not None:
        logits = top_k(logits, sampling.top_k)
    if sampling.tail is not None:
        logits = top_p(logits, sampling.tail)
    return logits if sampling.min_p is None else min_p(logits, sampling.min_p)


def top_k(logits: Array, k: Array) -> Array:
    """Logits below the k-th largest removed: ties with it all stay. k i32[B]; 0 keeps all."""
    order = _ordinals(logits)
    as_many = lambda place: _total((order >= place).astype(jnp.int32)) >= k[:, None]
    least = _highest(as_many)
    return jnp.where((order < least) & (k[:, None] > 0), -jnp.inf, logits)


def top_p(logits: Array, tail: Array) -> Array:
    """The least likely tokens removed as long as their mass is at most `tail` (Holtzman et al.
    2020, arXiv 1904.09751). Of equally likely ones those with lower ids go first."""
    tail, chances, order = tail[:, None], jax.nn.softmax(logits), _ordinals(logits)
    below = lambda place: _total(jnp.where(order < place, chances, 0.0))
    edge = _highest(lambda place: below(place) <= tail)
    edge = jnp.minimum(edge, order.max(-1, keepdims=True))
    tied = order == edge
    each = jnp.max(jnp.where(tied, chances, 0.0), -1, keepdims=True)
    spare = jnp.floor((tail - below(edge)) / each)  # how many of the tied ones go too
    spare = jnp.minimum(spare, tied.sum(-1, keepdims=True) - 1)
    removed = (order < edge) | (tied & (jnp.cumsum(tied, -1) <= spare))
    return jnp.where(removed & (tail > 0), -jnp.inf, logits)


def min_p(logits: Array, share: Array) -> Array:
    """Tokens less likely than `share` f32[B] of the likeliest removed (Nguyen et al. 2024, arXiv
    2407.01082)."""
    chances = jax.nn.softmax(logits)
    least = share[:, None] * chances.max(-1, keepdims=True)
    return jnp.where(chances < least, -jnp.inf, logits)


def _ordinals(x: Array) -> Array:
    """i32 in the order of f32, so that a threshold can be found bit by bit."""
    bits = jax.lax.bitcast_convert_type(jnp.where(x == 0, 0.0, x), jnp.int32)  # -0.0 is 0.0
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def _total(x: Array) -> Array:
    """The sum [B, 1] of each row, in lanes: XLA's CPU compiler leaves a plain one scalar."""
    if (size := x.shape[-1]) < 2 * BLOCK:
        return x.sum(-1, keepdims=True)
    even = size // BLOCK * BLOCK
    lanes = x[:, :even].reshape(x.shape[0], -1, BLOCK).sum(1)
    return (lanes.sum(-1) + x[:, even:].sum(-1))[:, None]


def _highest(holds: Callable[[Array], Array]) -> Array:
    """The highest i32[B, 1] for which a condition holds that holds for all lower ones.

    32 passes over the vocabulary: on a CPU twenty times faster than to sort it once.
    """

    def halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low >> 1) + (high >> 1) + ((low | high) & 1)  # rounded up, without overflow
        fits = holds(middle)
        return jnp.where(fits, middle, low), jnp.where(fits, high, middle - 1)

    limits = jnp.iinfo(jnp.int32)
    low, high = jnp.int32(limits.min)[None, None], jnp.int32(limits.max)[None, None]
    shape = jax.eval_shape(holds, low).shape
    ends = jnp.broadcast_to(low, shape), jnp.broadcast_to(high, shape)
    return jax.lax.fori_loop(0, 32, halve, ends)[0]


def draw(logits: Array, keys: Array) -> Array:
    """One token a row, i32[B], from logits f32[B, V] with keys [B]; never one that is removed.

    One uniform number a row goes through the inverse of the distribution function: noise for
    every token, as `jax.random.categorical` draws it, would cost more than a small model.
    """
    batch, size = logits.shape
    chances = jnp.exp(logits - logits.max(-1, keepdims=True))
    chances = jnp.pad(chances, ((0, 0), (0, -size % BLOCK))).reshape(batch, -1, BLOCK)
    totals = jnp.cumsum(chances.sum(-1), -1)
    uniform = jax.vmap(lambda key: jax.random.uniform(key))(keys)
    target = uniform * totals[:, -1]
    block = _first_above(totals, target)
    row = jnp.arange(batch)
    before = jnp.where(block > 0, totals[row, block - 1], 0.0)
    inside = jnp.cumsum(chances[row, block], -1)
    return (block * BLOCK + _first_above(inside, target - before)).astype(jnp.int32)


def _first_above(sums: Array, target: Array) -> Array:
    """Where sums f32[B, N], which ascend, first exceed the target f32[B].

    Rounding may leave the target above all of them: then the last place where they ascend.
    """
    target = jnp.minimum(target, jnp.nextafter(sums[:, -1], -jnp.inf))
    return jnp.argmax(sums > target[:, None], -1)
