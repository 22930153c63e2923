"""Beam search: several texts are followed at once, and the likeliest that ended are kept.

The rules, and their order, are those of transformers 5 (`generate(num_beams=...)`), which differ
from the textbook's: see `BeamConfig.early_stopping`.
"""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from jaxhpo.nn.cache import Cache, empty_cache, extend, laid_out, read, read_out
from jaxhpo.nn.config import BeamConfig, ModelConfig
from jaxhpo.nn.decoding import ABSENT
from jaxhpo.nn.filters import penalise
from jaxhpo.nn.transformer import Params

Array = jax.Array

NEVER = -1.0e9
"""The score of what may not be chosen: finite, as in transformers."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Found:
    """The best texts of each prompt, best first: tokens i32[B, N, n] with ABSENT behind the end,
    scores f32[B, N], and how many tokens were written before the search ended, i32[]."""

    tokens: Array
    scores: Array
    steps: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Search:
    """Beams [B, N] that run, with their cache [B * N], and the pool [B, N] of those that ended."""

    step: Array
    cache: Cache
    logits: Array
    mentioned: Array | None
    running: Array
    running_scores: Array
    pool: Array
    pool_scores: Array
    ended: Array
    open: Array
    stuck: Array


def beam_search(
    model: ModelConfig,
    params: Params,
    prompts: Array,
    lengths: Array,
    stops: Array,
    length: int,
    beams: BeamConfig,
    length_penalty: Array | float,
    penalty: Array | float,
) -> Found:
    """The likeliest continuations of prompts i32[B, T] (`lengths` as for `decoding.begin`).

    Up to `length` tokens; `stops` i32[S] end a text and belong to it. Both penalties are traced.
    Prompt and text must fit the model's context.
    """
    params = laid_out(params)
    penalised = beams.repetition_penalty != 1.0
    state = _first(model, params, prompts, lengths, length, beams, penalised)
    rules = _Rules(beams.num_beams, beams.early_stopping, length, length_penalty)

    def advance(state: _Search) -> _Search:
        state, tokens, parents = _step(state, rules, stops, penalty if penalised else None)
        return _extended(model, params, state, tokens, parents)

    state = jax.lax.while_loop(lambda state: rules.goes_on(state), advance, state)
    return Found(state.pool, state.pool_scores, state.step)


@dataclass(frozen=True)
class _Rules:
    beams: int
    early_stopping: str
    length: int
    length_penalty: Any

    def score(self, total: Array, length: Array | int) -> Array:
        """A log-probability as a score: divided by length ** length_penalty."""
        return total / jnp.asarray(length, jnp.float32) ** self.length_penalty

    def goes_on(self, state: _Search) -> Array:
        full = state.ended.all() & (self.early_stopping == "true")
        return (state.step == 0) | (state.open.any() & ~full & ~state.stuck)

    def could_improve(self, state: _Search, best: Array, step: Array) -> Array:
        """Whether the best running beam, f32[B, 1], may still enter the pool: an estimate from its
        length now, or with early_stopping=never and a reward for length from the longest text."""
        length = step
        if self.early_stopping == "never":
            length = jnp.where(jnp.asarray(self.length_penalty) > 0, self.length, step)
        worst = jnp.where(state.ended, state.pool_scores.min(1, keepdims=True), NEVER)
        return (self.score(best, length) > worst).any(-1, keepdims=True)


def _first(
    model: ModelConfig,
    params: Params,
    prompts: Array,
    lengths: Array,
    length: int,
    beams: BeamConfig,
    penalised: bool,
) -> _Search:
    """The prompt, read once, then copied to its beams; only the first may be continued."""
    batch, count = prompts.shape[0], beams.num_beams
    room = prompts.shape[1] + length
    cache = empty_cache(model, batch, room, ragged=lengths.ndim == 1)
    last, cache = read(model, params, prompts, lengths, cache)
    logits = read_out(model, params, last)[:, 0]
    repeat = lambda x: jnp.repeat(x, count, 0) if x.ndim else x
    mentioned = None
    if penalised:
        rows = jnp.arange(batch)
        real = jnp.arange(prompts.shape[1]) < jnp.broadcast_to(lengths, rows.shape)[:, None]
        mentioned = jnp.zeros((batch, model.vocab_size), bool)
        beyond = jnp.where(real, prompts, model.vocab_size)
        mentioned = repeat(mentioned.at[rows[:, None], beyond].set(True, mode="drop"))
    texts = jnp.full((batch, count, length), ABSENT, jnp.int32)
    scores = jnp.full((batch, count), NEVER, jnp.float32)
    return _Search(
        step=jnp.int32(0),
        cache=jax.tree.map(repeat, cache),
        logits=repeat(logits),
        mentioned=mentioned,
        running=texts,
        running_scores=scores.at[:, 0].set(0.0),
        pool=texts,
        pool_scores=scores,
        ended=jnp.zeros((batch, count), bool),
        open=jnp.ones((batch, 1), bool),
        stuck=jnp.bool_(False),
    )


def _step(
    state: _Search, rules: _Rules, stops: Array, penalty: Array | float | None
) -> tuple[_Search, Array, Array]:
    """Every beam's best continuations: what ended goes to the pool, the best others run on.

    Also the new tokens i32[B, N] and the beams i32[B, N] that they continue.
    """
    batch, count = state.running_scores.shape
    vocabulary, step = state.logits.shape[-1], state.step
    logs = jax.nn.log_softmax(state.logits)
    if penalty is not None and state.mentioned is not None:
        logs = penalise(logs, jnp.broadcast_to(penalty, logs.shape[:1]), state.mentioned)
    totals = logs.reshape(batch, count, -1) + state.running_scores[:, :, None]
    # twice as many as there are beams, or more: each may end in every stop token
    wanted = min(max(2, 1 + stops.shape[0]) * count, count * vocabulary)
    totals, places = jax.lax.top_k(totals.reshape(batch, -1), wanted)
    parents, tokens = places // vocabulary, (places % vocabulary).astype(jnp.int32)
    texts = jnp.take_along_axis(state.running, parents[:, :, None], 1)
    texts = jax.lax.dynamic_update_slice(texts, tokens[:, :, None], (0, 0, step))
    ends = (tokens[:, :, None] == stops).any(-1) | (step + 1 >= rules.length)

    _, best = jax.lax.top_k(totals + ends * NEVER, count)
    pick = lambda x: jnp.take_along_axis(x, best.reshape(*best.shape, *[1] * (x.ndim - 2)), 1)

    counted = ends & (jnp.arange(wanted) < count)
    scores = rules.score(totals, step + 1)
    if rules.early_stopping == "true":
        scores = scores + state.ended.all(-1, keepdims=True) * NEVER
    scores = scores + ~state.open * NEVER + ~counted * NEVER
    merge = lambda old, new: jnp.concatenate([old, new], 1)
    pool_scores, kept = jax.lax.top_k(merge(state.pool_scores, scores), count)
    state = _Search(
        step=step + 1,
        cache=state.cache,
        logits=state.logits,
        mentioned=state.mentioned,
        running=pick(texts),
        running_scores=pick(totals + ends * NEVER),
        pool=jnp.take_along_axis(merge(state.pool, texts), kept[:, :, None], 1),
        pool_scores=pool_scores,
        ended=jnp.take_along_axis(merge(state.ended, counted), kept, 1),
        open=state.open,
        stuck=ends.all(),
    )
    improves = rules.could_improve(state, state.running_scores[:, :1], state.step)
    return replace(state, open=state.open & improves), pick(tokens), pick(parents)


def _extended(
    model: ModelConfig, params: Params, state: _Search, tokens: Array, parents: Array
) -> _Search:
    """The running beams with their caches in the new order, and their next logits."""
    batch, count = tokens.shape
    rows = (jnp.arange(batch)[:, None] * count + parents).reshape(-1)
    move = lambda x: x[rows] if x.ndim else x
    mentioned = state.mentioned
    if mentioned is not None:
        mentioned = move(mentioned).at[jnp.arange(rows.size), tokens.reshape(-1)].set(True)
    cache = jax.tree.map(move, state.cache)
    states, cache = extend(model, params, tokens.reshape(-1, 1), 1, cache)
    logits = read_out(model, params, states)[:, 0]
    return replace(state, cache=cache, logits=logits, mentioned=mentioned)
