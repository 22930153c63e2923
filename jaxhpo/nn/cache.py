"""What decoding remembers: keys and values of every layer, so that each token is computed once."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from jaxhpo.nn.attention import Memory, rotation_of
from jaxhpo.nn.config import ModelConfig
from jaxhpo.nn.sizes import CHUNK
from jaxhpo.nn.transformer import Params, bound

Array = jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Cache:
    """Memories of all layers with room for C tokens a row, and how many tokens each row has.

    Row b has its token at position p in slot p; what lies behind `lengths[b]` is not yet written.
    `lengths` is i32[B], or i32[] where all rows are as long: writing then is one slice, not a
    scatter.
    """

    layers: tuple[Memory, ...]
    lengths: Array

    @property
    def capacity(self) -> int:
        return self.layers[0].keys.shape[2]


def empty_cache(config: ModelConfig, batch: int, capacity: int, ragged: bool) -> Cache:
    """A cache of nothing, in the model's compute dtype."""
    shape = batch, config.kv_heads, capacity, config.width_of_head
    zeros = jnp.zeros(shape, config.compute_dtype)
    layers = tuple(Memory(zeros, zeros) for _ in range(config.num_layers))
    return Cache(layers, jnp.zeros(batch if ragged else (), jnp.int32))


def laid_out(params: Params) -> Params:
    """The parameters with one entry a layer in `blocks`, instead of one stacked on [L].

    A loop over tokens that cut its layers out of the stack would copy them for every token.
    """
    blocks = params["blocks"]
    if isinstance(blocks, tuple):
        return params
    layers = jax.tree.leaves(blocks)[0].shape[0]
    rows = tuple(jax.tree.map(lambda x, i=i: x[i], blocks) for i in range(layers))
    return {**params, "blocks": rows}


def extend(
    config: ModelConfig, params: Params, tokens: Array, added: Array | int, cache: Cache
) -> tuple[Array, Cache]:
    """States f[B, T, D] of tokens i32[B, T] that follow those in the cache, and the longer cache.

    `added` i32[B] (or i32[], as `cache.lengths` is) says how many of the T are real: padding is on
    the right, is seen by no token, and is overwritten by what follows. `params` are laid out. The
    caller sees to it that the tokens fit.
    """
    places = cache.lengths[..., None] + jnp.arange(tokens.shape[1])
    positions = jnp.broadcast_to(places, tokens.shape)
    slots = jnp.arange(cache.capacity)
    seen = slots <= positions[:, :, None]
    if config.window is not None:
        seen &= slots > positions[:, :, None] - config.window
    rotation = rotation_of(config, positions)
    parts: list[Any] = [bound(config, {**params, "blocks": row}) for row in params["blocks"]]
    x = parts[0].embedded(tokens, positions)
    layers = []
    for part, memory in zip(parts, cache.layers, strict=True):
        x, memory = part.blocks.extend(x, rotation, memory, cache.lengths, seen)
        layers.append(memory)
    return x, replace(cache, layers=tuple(layers), lengths=cache.lengths + added)


def read(
    config: ModelConfig, params: Params, prompts: Array, lengths: Array, cache: Cache
) -> tuple[Array, Cache]:
    """The state f[B, 1, D] of the last token of prompts i32[B, T], and the cache that holds them.

    `lengths` is i32[B], or i32[] where all are as long; what the cache held before is lost. Long
    prompts are read in pieces, or the scores of all their tokens would live at once.
    """
    rows, size = prompts.shape
    ends = jnp.broadcast_to(lengths, (rows,))
    piece = _piece(size)

    def one(carry: tuple[Cache, Array], start: Array) -> tuple[tuple[Cache, Array], None]:
        cache, last = carry
        tokens = jax.lax.dynamic_slice_in_dim(prompts, start, piece, 1)
        states, cache = extend(config, params, tokens, piece, cache)
        place = jnp.clip(ends - 1 - start, 0, piece - 1)
        here = ((ends > start) & (ends <= start + piece))[:, None, None]
        return (cache, jnp.where(here, states[jnp.arange(rows), place][:, None], last)), None

    # one slot for all rows, whatever their lengths: a piece is then written as one slice
    blank = jnp.zeros((rows, 1, config.d_model), config.compute_dtype)
    carry = replace(cache, lengths=jnp.int32(0)), blank
    if piece == size:
        cache, last = one(carry, jnp.int32(0))[0]
    else:
        (cache, last), _ = jax.lax.scan(one, carry, jnp.arange(0, size, piece))
    return last, replace(cache, lengths=lengths)


def _piece(size: int) -> int:
    """The largest even part of a prompt that is read at once; all of it where parts are tiny."""
    piece = max(part for part in range(1, min(size, CHUNK) + 1) if size % part == 0)
    return piece if piece >= min(size, 32) else size


def read_out(config: ModelConfig, params: Params, states: Array) -> Array:
    """Logits f32[B, T, V] of states f[B, T, D] that `extend` gave."""
    return bound(config, {**params, "blocks": params["blocks"][0]}).logits(states)
