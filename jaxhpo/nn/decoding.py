"""Text from a model: a prompt is read at once, then a loop adds a token to every row."""

from dataclasses import dataclass, field, replace
from functools import partial

import jax
import jax.numpy as jnp

from jaxhpo.nn.cache import Cache, empty_cache, extend, read, read_out
from jaxhpo.nn.config import ModelConfig
from jaxhpo.nn.filters import Sampling, draw, process
from jaxhpo.nn.transformer import Params

Array = jax.Array

ABSENT = -1
"""Stands where a row has no token: behind its end, and for a stop token that is none."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Texts:
    """Rows that are being written. A row's tokens depend on its own prompt, seed and values alone.

    `window` i32[B, C] are the tokens that the model sees, by slot; `last` i32[B] is the newest
    token, which is not yet in the cache; `drawn` i32[] counts the tokens drawn so far; `mentioned`
    bool[B, V] are a row's tokens since its beginning, where a penalty asks for them. `measured`
    (static) says whether log-probabilities and entropies are wanted.
    """

    cache: Cache
    window: Array
    last: Array
    drawn: Array
    finished: Array
    mentioned: Array | None
    sampling: Sampling
    seeds: Array
    stops: Array
    measured: bool = field(metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Written:
    """Tokens i32[B, n], ABSENT behind a row's end, and of each the log-probability f32[B, n] that
    the model gave it, and the entropy f32[B, n], in nats, of what it was drawn from (or None)."""

    tokens: Array
    log_probs: Array | None = None
    entropies: Array | None = None


def begin(
    config: ModelConfig,
    params: Params,
    prompts: Array,
    lengths: Array,
    sampling: Sampling,
    seeds: Array,
    stops: Array,
    capacity: int,
    measured: bool = True,
) -> tuple[Texts, Written]:
    """Reads prompts i32[B, T], of which `lengths` i32[B] (or i32[]: of all) are real, and writes
    the first token of each. `params` are laid out; `stops` i32[S] end a row, and are written."""
    rows = jnp.arange(prompts.shape[0])
    cache = empty_cache(config, prompts.shape[0], capacity, ragged=lengths.ndim == 1)
    last, cache = read(config, params, prompts, lengths, cache)
    lengths = jnp.broadcast_to(lengths, rows.shape)
    real = jnp.arange(prompts.shape[1]) < lengths[:, None]
    mentioned = None
    if sampling.penalty is not None:
        beyond = jnp.where(real, prompts, config.vocab_size)
        mentioned = jnp.zeros((rows.size, config.vocab_size), bool)
        mentioned = mentioned.at[rows[:, None], beyond].set(True, mode="drop")
    window = jnp.zeros((rows.size, capacity), jnp.int32)
    texts = Texts(
        cache=cache,
        window=jax.lax.dynamic_update_slice(window, jnp.where(real, prompts, 0), (0, 0)),
        last=jnp.zeros_like(rows, jnp.int32),
        drawn=jnp.int32(0),
        finished=jnp.zeros(rows.size, bool),
        mentioned=mentioned,
        sampling=sampling,
        seeds=seeds,
        stops=stops,
        measured=measured,
    )
    logits = read_out(config, params, last)[:, 0]
    texts, written = choose(texts, logits)
    return texts, jax.tree.map(lambda x: x[:, None], written)


def write(
    config: ModelConfig, params: Params, texts: Texts, count: int, limit: Array | int, slides: bool
) -> tuple[Texts, Written]:
    """Adds up to `count` tokens to every row, and no more than `limit` (traced).

    Ends early when all rows have met a stop token. A row that has filled its window carries on
    from the window's last half, read again, if `slides`; else it ends there.
    """
    rows = texts.last.shape[0]
    numbers = [jnp.zeros((rows, count), jnp.float32)] * 2 if texts.measured else []
    blank = Written(jnp.full((rows, count), ABSENT, jnp.int32), *numbers)
    limit = jnp.minimum(count, limit)
    goes_on = lambda texts, made: (made < limit) & ~texts.finished.all()

    def one(carry: tuple[Texts, Written, Array]) -> tuple[Texts, Written, Array]:
        texts, written, made = carry
        if not slides:
            full = texts.cache.lengths >= texts.cache.capacity
            texts = replace(texts, finished=texts.finished | full)
        texts = remember_last(texts)
        states, cache = extend(config, params, texts.last[:, None], 1, texts.cache)
        logits = read_out(config, params, states)[:, 0]
        texts, new = choose(replace(texts, cache=cache), logits)
        put = lambda whole, part: jax.lax.dynamic_update_slice(whole, part[:, None], (0, made))
        return texts, jax.tree.map(put, written, new), made + 1

    def stretch(carry: tuple[Texts, Written, Array]) -> tuple[Texts, Written, Array]:
        """To the next full window: sliding stands outside the loop, which then copies nothing."""
        texts, written, made = carry
        texts = jax.lax.cond(has_full(texts), partial(slide, config, params), lambda t: t, texts)
        roomy = lambda carry: goes_on(carry[0], carry[2]) & ~has_full(carry[0])
        return jax.lax.while_loop(roomy, one, (texts, written, made))

    carry = texts, blank, jnp.int32(0)
    texts, written, _ = jax.lax.while_loop(
        lambda carry: goes_on(carry[0], carry[2]), stretch if slides else one, carry
    )
    return texts, written


def choose(texts: Texts, logits: Array) -> tuple[Texts, Written]:
    """The next token of each row from logits f32[B, V]: its `Written` is [B]."""
    scores = process(logits, texts.sampling, texts.mentioned)
    if texts.sampling.greedy:
        token = jnp.argmax(scores, -1).astype(jnp.int32)
    else:
        key = lambda seed: jax.random.fold_in(jax.random.key(seed), texts.drawn)
        token = draw(scores, jax.vmap(key)(texts.seeds))
    numbers = []
    if texts.measured:
        logs = jax.nn.log_softmax(logits)
        numbers = [jnp.take_along_axis(logs, token[:, None], -1)[:, 0], entropy(scores)]
    shown = Written(jnp.where(texts.finished, ABSENT, token), *numbers)
    mentioned = texts.mentioned
    if mentioned is not None:
        mentioned = mentioned.at[jnp.arange(token.size), token].set(True)
    finished = texts.finished | (token[:, None] == texts.stops).any(-1)
    texts = replace(
        texts, last=token, drawn=texts.drawn + 1, finished=finished, mentioned=mentioned
    )
    return texts, shown


def entropy(logits: Array) -> Array:
    """Entropy in nats of softmax(logits): f[..., V] -> f[...]; removed tokens (-inf) add none."""
    logs = jax.nn.log_softmax(logits)
    return -jnp.sum(jnp.where(jnp.isfinite(logs), jnp.exp(logs) * logs, 0.0), -1)


def remember_last(texts: Texts) -> Texts:
    """The window with the newest token of each row in it."""
    slots = texts.cache.lengths
    if slots.ndim == 0:
        window = jax.lax.dynamic_update_slice(texts.window, texts.last[:, None], (0, slots))
    else:
        rows = jnp.arange(texts.last.size)
        window = texts.window.at[rows, slots].set(texts.last, mode="drop")
    return replace(texts, window=window)


def has_full(texts: Texts) -> Array:
    """Whether a row has no slot left for its newest token."""
    return jnp.any(texts.cache.lengths >= texts.cache.capacity)


def slide(config: ModelConfig, params: Params, texts: Texts) -> Texts:
    """Rows with a full window go back to its last half, whose tokens take new positions."""
    capacity, lengths = texts.cache.capacity, texts.cache.lengths
    kept = jnp.where(lengths >= capacity, max(capacity // 2, 1), lengths)
    kept = jnp.minimum(kept, capacity - 1)
    start = jnp.broadcast_to(lengths - kept, texts.last.shape)
    turn = jax.vmap(lambda row, by: jnp.roll(row, -by))
    window = turn(texts.window, start)
    ragged = lengths.ndim == 1
    cache = empty_cache(config, texts.last.size, capacity, ragged)
    _, cache = read(config, params, window, kept, cache)
    return replace(texts, cache=cache, window=window)
