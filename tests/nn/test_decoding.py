"""Laws of decoding: the cache changes nothing, rows are alone, and draws follow the model."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxhpo import nn
from jaxhpo.nn import cache as caches
from jaxhpo.nn import filters
from jaxhpo.nn.beam import beam_search
from jaxhpo.nn.config import BeamConfig, ModelConfig, RopeConfig, SamplingConfig
from jaxhpo.nn.decoding import ABSENT

TINY = ModelConfig(num_layers=2, d_model=16, num_heads=4, vocab_size=32, context=16)
VARIANTS = {
    "learned": {"position": "learned", "norm": "layer", "bias": True},
    "rotary-grouped": {"num_kv_heads": 2, "activation": "swiglu", "tie_embeddings": False},
    "multi-query": {"num_kv_heads": 1, "position": "none"},
    "qk-norm": {"qk_norm": True, "head_dim": 8, "num_kv_heads": 2},
    "capped": {"logit_softcap": 5.0, "attention_softcap": 3.0},
    "window": {"window": 3, "qkv_bias": True},
    "yarn": {"rope": RopeConfig(scaling="yarn", factor=4.0, original_context=8)},
    "post-norm": {"norm_position": "post", "norm": "layer", "position": "learned"},
}
TOKENS = np.random.default_rng(0).integers(0, 32, (3, 16)).astype(np.int32)


@pytest.fixture(params=VARIANTS, scope="module")
def model(request):
    config = replace(TINY, init_std=0.2, **VARIANTS[request.param])
    return config, caches.laid_out(nn.init(config, jax.random.key(1)))


def whole(config, params, tokens):
    stacked = jax.tree.map(lambda *rows: jnp.stack(rows), *params["blocks"])
    return np.asarray(nn.apply(config, {**params, "blocks": stacked}, tokens))


def test_cached_decoding_equals_the_whole_forward_pass_at_every_position(model):
    config, params = model
    expected = whole(config, params, TOKENS)

    @jax.jit
    def cached(tokens):
        cache = caches.empty_cache(config, 3, 16, ragged=False)
        states, cache = caches.extend(config, params, tokens[:, :5], 5, cache)

        def one(cache, token):
            states, cache = caches.extend(config, params, token[:, None], 1, cache)
            return cache, caches.read_out(config, params, states)[:, 0]

        _, rest = jax.lax.scan(one, cache, tokens[:, 5:].T)
        first = caches.read_out(config, params, states)
        return jnp.concatenate([first, rest.swapaxes(0, 1)], 1)

    np.testing.assert_allclose(cached(TOKENS), expected, rtol=2e-4, atol=2e-5)


def test_prompts_of_different_lengths_equal_each_alone(model):
    config, params = model
    expected = whole(config, params, TOKENS)
    lengths = np.array([3, 7, 5])

    @jax.jit
    def padded(tokens):
        cache = caches.empty_cache(config, 3, 16, ragged=True)
        states, cache = caches.extend(config, params, tokens[:, :8], jnp.asarray(lengths), cache)
        found = [caches.read_out(config, params, states)[jnp.arange(3), lengths - 1]]
        for step in range(3):
            token = tokens[jnp.arange(3), lengths + step]
            states, cache = caches.extend(config, params, token[:, None], 1, cache)
            found.append(caches.read_out(config, params, states)[:, 0])
        return jnp.stack(found, 1)

    # what stands in the padding must not matter: garbage, not zeros
    found = np.asarray(padded(TOKENS))
    for row, length in enumerate(lengths):
        wanted = expected[row, length - 1 : length + 3]
        np.testing.assert_allclose(found[row], wanted, rtol=2e-4, atol=2e-5)


def test_a_prompt_read_in_pieces_equals_one_read_at_once(model, monkeypatch):
    config, params = model
    expected = whole(config, params, TOKENS)
    monkeypatch.setattr(caches, "_piece", lambda size: 4)
    lengths = np.array([3, 16, 9])

    @jax.jit
    def read(tokens):
        cache = caches.empty_cache(config, 3, 16, ragged=True)
        last, cache = caches.read(config, params, tokens, jnp.asarray(lengths), cache)
        token = tokens[jnp.arange(3), jnp.minimum(lengths, 15)]
        after, _ = caches.extend(config, params, token[:, None], 1, cache)
        return jnp.concatenate([last, after], 1)

    found = caches.read_out(config, params, read(TOKENS))
    for row, length in enumerate(lengths):
        for place in range(2 if length < 16 else 1):
            wanted = expected[row, length - 1 + place]
            np.testing.assert_allclose(found[row, place], wanted, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize(
    ("size", "piece"), [(8, 8), (256, 256), (1024, 256), (1000, 250), (521, 521)]
)
def test_prompts_are_cut_into_even_pieces(size, piece):
    assert caches._piece(size) == piece


def test_heads_that_queries_share_are_remembered_once():
    config = replace(TINY, num_kv_heads=1)
    keys = caches.empty_cache(config, 2, 16, ragged=False).layers[0].keys
    assert keys.shape == (2, 1, 16, 4)
    half = replace(config, compute_dtype="bfloat16")
    assert caches.empty_cache(half, 2, 16, ragged=False).layers[0].keys.dtype == jnp.bfloat16


CHANCES = np.array([0.5, 0.25, 0.125, 0.0625, 0.0625])
Z = np.array([2.0, 1.0, 0.5, 0.0, -1.0])


def kept(logits, **values):
    config = SamplingConfig(**{"temperature": 1.0, **values})
    return filters.process(jnp.float32(logits)[None], filters.lower([config]), None)[0]


@pytest.mark.parametrize(
    ("values", "places"),
    [
        ({"top_p": 0.5}, [0]), ({"top_p": 0.74}, [0, 1]), ({"top_p": 0.8}, [0, 1, 2]),
        ({"top_p": 0.9}, [0, 1, 2, 4]), ({"top_p": 1e-9}, [0]), ({"top_k": 4}, [0, 1, 2, 3, 4]),
        ({"top_k": 1}, [0]), ({"top_k": 99}, [0, 1, 2, 3, 4]), ({"min_p": 0.13}, [0, 1, 2]),
        ({"min_p": 0.125}, [0, 1, 2, 3, 4]), ({"min_p": 0.5}, [0, 1]), ({"min_p": 1.0}, [0]),
    ],
)  # fmt: skip
def test_each_filter_keeps_the_tokens_of_the_worked_example(values, places):
    found = kept(np.log(CHANCES), **values)
    np.testing.assert_array_equal(np.flatnonzero(np.isfinite(found)), places)


@pytest.mark.parametrize(
    ("values", "chances"),
    [
        ({"temperature": 0.2},
         [0.9927166985, 0.0066888725, 0.0005490561, 4.50692684e-05, 3.0367434e-07]),
        ({"temperature": 0.7},
         [0.700198418, 0.1678032766, 0.0821466945, 0.0402142292, 0.0096373817]),
        ({"temperature": 1.2},
         [0.501992003, 0.2181648252, 0.1438231168, 0.0948140422, 0.0412060129]),
        ({"temperature": 0.7, "top_k": 40, "top_p": 0.9},
         [0.7369358576, 0.1766074421, 0.0864567003, 0, 0]),
        ({"temperature": 0.7, "top_k": 3, "top_p": 0.9}, [0.8066786302, 0.1933213698, 0, 0, 0]),
    ],
)  # fmt: skip
def test_distributions_equal_the_worked_example(values, chances):
    np.testing.assert_allclose(jax.nn.softmax(kept(Z, **values)), chances, rtol=2e-5)


def test_entropies_equal_the_worked_example():
    from jaxhpo.nn.decoding import entropy

    temperatures = np.float32([[0.2], [0.7], [1.0], [1.2]])
    wanted = [0.0453274852, 0.9283399894, 1.2064892076, 1.3117924426]
    np.testing.assert_allclose(entropy(jnp.float32(Z) / temperatures), wanted, rtol=2e-5)


def test_a_grid_of_settings_is_rows_and_each_row_has_its_own():
    rows = [SamplingConfig(), SamplingConfig(top_k=2), SamplingConfig(temperature=3.0, top_p=0.6)]
    lowered = filters.lower(rows)
    assert lowered.min_p is None and lowered.penalty is None, "a filter that nobody uses is code"
    logits = jnp.tile(jnp.float32(Z), (3, 1))
    found = filters.process(logits, lowered, None)
    for row, config in zip(found, rows, strict=True):
        np.testing.assert_allclose(row, kept(Z, **vars(config)), rtol=1e-6)


@pytest.mark.parametrize("size", [5, 300])
def test_draws_follow_the_distribution(size):
    """Chi-square of 60,000 draws, at one in 10,000; removed tokens are never drawn."""
    from scipy.stats import chi2

    rng, draws = np.random.default_rng(size), 60_000
    logits = rng.normal(size=size).astype(np.float32)
    logits[rng.choice(size, size // 5, replace=False)] = -np.inf
    keys = jax.random.split(jax.random.key(0), draws)
    drawn = jax.jit(filters.draw)(jnp.tile(logits, (draws, 1)), keys)
    counts = np.bincount(drawn, minlength=size)
    expected = draws * np.asarray(jax.nn.softmax(logits))
    assert not counts[expected == 0].any()
    live = expected > 0
    statistic = np.sum((counts[live] - expected[live]) ** 2 / expected[live])
    assert statistic < chi2.ppf(0.9999, live.sum() - 1)


def test_a_draw_at_the_end_of_the_unit_interval_is_a_token_that_may_be_drawn():
    sums = jnp.float32([[0.0, 0.4, 0.4, 1.0, 1.0]])
    for target, place in [(0.0, 1), (0.4, 3), (0.9999, 3), (1.0, 3), (1.5, 3)]:
        assert int(filters._first_above(sums, jnp.float32([target]))[0]) == place


MARKOV = np.log(np.array([[0, 0.5, 0.4, 0.1], [0, 0.4, 0.3, 0.3], [0, 0.05, 0.05, 0.9]]) + 1e-30)


@pytest.mark.parametrize(
    ("power", "scores"), [(0.0, [-1.021651, -2.002481]), (1.0, [-0.510826, -0.667494])]
)
def test_beams_on_a_markov_chain_equal_the_worked_example(power, scores, monkeypatch):
    """Logits are the chain's row of the newest token: the model is replaced by a table."""
    table = jnp.float32(np.vstack([MARKOV, MARKOV[:1]]))
    monkeypatch.setattr(
        "jaxhpo.nn.beam.read", lambda config, params, prompts, lengths, cache: (prompts, cache)
    )
    monkeypatch.setattr(
        "jaxhpo.nn.beam.extend",
        lambda config, params, tokens, added, cache: (
            tokens,
            replace(cache, lengths=cache.lengths),
        ),
    )
    monkeypatch.setattr("jaxhpo.nn.beam.read_out", lambda config, params, states: table[states])
    found = beam_search(
        replace(TINY, vocab_size=4), {"blocks": ()}, jnp.int32([[0]]), jnp.int32(1),
        jnp.int32([3]), 5, BeamConfig(2), power, 1.0,
    )  # fmt: skip
    tokens = [[int(t) for t in row if t != ABSENT] for row in found.tokens[0]]
    assert tokens == [[2, 3], [1, 2, 3]]
    np.testing.assert_allclose(found.scores[0], scores, rtol=1e-5)
