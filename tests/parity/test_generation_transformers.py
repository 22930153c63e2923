"""Filters, distributions, greedy text and beams against the reference library's generation."""

import functools
from dataclasses import replace

import jax
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from jaxhpo.nn import filters
from jaxhpo.nn.beam import beam_search
from jaxhpo.nn.config import BeamConfig, SamplingConfig
from jaxhpo.nn.decoding import ABSENT
from jaxhpo.population.decoding import Decoder
from tests.parity.models import gpt2, grouped

torch = pytest.importorskip("torch")
process = pytest.importorskip("transformers.generation.logits_process")

PLAIN = SamplingConfig(temperature=1.0)
ROWS, VOCABULARY = 3, 40
ours = jax.jit(filters.process)


@st.composite
def logits(draw):
    """Random rows; rounded ones have many ties."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = rng.normal(size=(ROWS, VOCABULARY)) * draw(st.sampled_from([0.3, 3.0, 10.0]))
    return np.round(x, draw(st.sampled_from([0, 1, 12]))).astype(np.float32)


def theirs(x, config, mentioned=None):
    """The processors that transformers builds for these settings, in its order."""
    scores = torch.tensor(x)
    if config.repetition_penalty != 1.0:
        penalty = process.RepetitionPenaltyLogitsProcessor(config.repetition_penalty)
        scores = penalty(torch.tensor(mentioned), scores)
    if config.temperature != 1.0:
        scores = process.TemperatureLogitsWarper(config.temperature)(None, scores)
    if config.top_k:
        scores = process.TopKLogitsWarper(config.top_k)(None, scores)
    if config.top_p < 1.0:
        # where p is a partial sum, rounding decides; leave room for it on both sides
        sums = np.cumsum(np.sort(torch.softmax(scores.double(), -1).numpy(), -1), -1)
        assume(np.abs(sums - (1.0 - config.top_p)).min() > 1e-5)
        scores = process.TopPLogitsWarper(config.top_p)(None, scores)
    if config.min_p:
        chances = torch.softmax(scores.double(), -1)
        assume(torch.abs(chances / chances.amax(-1, keepdim=True) - config.min_p).min() > 1e-5)
        scores = process.MinPLogitsWarper(config.min_p)(None, scores)
    return scores.numpy()


def assert_equal_distributions(found, expected):
    """The same tokens removed, up to which of equally likely ones; what is left is equal."""
    found, expected = np.asarray(found), np.asarray(expected)
    np.testing.assert_array_equal(np.isfinite(found).sum(-1), np.isfinite(expected).sum(-1))
    chances = lambda x: np.sort(np.asarray(torch.softmax(torch.tensor(x), -1)), -1)
    np.testing.assert_allclose(chances(found), chances(expected), rtol=2e-5, atol=1e-9)


shares = st.floats(0.01, 1.0)
temperatures = st.floats(0.1, 5.0)


def mixed(**values):
    return filters.lower([replace(PLAIN, **values)] * ROWS)


@settings(max_examples=60, deadline=None)
@given(x=logits(), temperature=temperatures)
def test_temperature_equals_theirs(x, temperature):
    expected = theirs(x, replace(PLAIN, temperature=temperature))
    np.testing.assert_allclose(ours(x, mixed(temperature=temperature), None), expected, rtol=1e-6)


@settings(max_examples=100, deadline=None)
@given(x=logits(), k=st.integers(1, VOCABULARY + 5))
def test_top_k_keeps_the_same_tokens_ties_too(x, k):
    found = ours(x, mixed(top_k=k), None)
    np.testing.assert_array_equal(found, theirs(x, replace(PLAIN, top_k=k)))


@settings(max_examples=150, deadline=None)
@given(x=logits(), p=shares)
def test_top_p_keeps_the_same_tokens(x, p):
    expected = theirs(x, replace(PLAIN, top_p=p))
    found = np.asarray(ours(x, mixed(top_p=p), None))
    assert_equal_distributions(found, expected)
    distinct = np.array([len(np.unique(row)) == VOCABULARY for row in x])
    np.testing.assert_array_equal(found[distinct], expected[distinct])


@settings(max_examples=100, deadline=None)
@given(x=logits(), p=shares)
def test_min_p_keeps_the_same_tokens(x, p):
    np.testing.assert_array_equal(ours(x, mixed(min_p=p), None), theirs(x, replace(PLAIN, min_p=p)))


@settings(max_examples=60, deadline=None)
@given(x=logits(), penalty=st.floats(0.3, 3.0), seed=st.integers(0, 1000))
def test_the_repetition_penalty_equals_theirs(x, penalty, seed):
    ids = np.random.default_rng(seed).integers(0, VOCABULARY, (ROWS, 7))
    mentioned = np.zeros((ROWS, VOCABULARY), bool)
    np.put_along_axis(mentioned, ids, True, 1)
    expected = theirs(x, replace(PLAIN, repetition_penalty=penalty), ids)
    found = ours(x, mixed(repetition_penalty=penalty), mentioned)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@settings(max_examples=150, deadline=None)
@given(
    x=logits(), temperature=temperatures, k=st.integers(1, VOCABULARY), p=shares,
    min_p=st.floats(0.001, 0.9),
)  # fmt: skip
def test_whole_distributions_equal_theirs(x, temperature, k, p, min_p):
    config = SamplingConfig(temperature=temperature, top_k=k, top_p=p, min_p=min_p)
    expected = theirs(x, config)
    found = ours(x, filters.lower([config] * ROWS), None)
    assert_equal_distributions(found, expected)


MODELS = {
    "gpt2": lambda: gpt2(n_positions=64),
    "llama": lambda: grouped("Llama", max_position_embeddings=64),
}
LENGTH, PAD = 14, 60


@functools.cache
def model(name):
    return MODELS[name]()


def prompts():
    return np.random.default_rng(3).integers(0, 61, (3, 6))


@functools.cache
def greedy(name, penalty=1.0, end=None):
    """The reference library's greedy texts; without an `end` none ends early."""
    texts = model(name)[2].generate(
        torch.tensor(prompts()), max_new_tokens=LENGTH, do_sample=False, eos_token_id=end,
        pad_token_id=PAD, repetition_penalty=penalty,
    )  # fmt: skip
    return texts[:, 6:].numpy()


def likely_ends(name, count):
    """Tokens that texts of this model come to soon: as stop tokens they end some and not others."""
    return [int(row[place]) for row, place in zip(greedy(name), (4, 6, 2), strict=True)][:count]


@pytest.mark.parametrize("penalty", [1.0, 1.4])
@pytest.mark.parametrize("name", MODELS)
def test_greedy_text_equals_theirs(name, penalty):
    config, params, _ = model(name)
    (end,) = likely_ends(name, 1)
    expected = greedy(name, penalty, end)
    assert (expected == PAD).any(), "nothing ended early"
    settings = [SamplingConfig(greedy=True, repetition_penalty=penalty)] * 3
    found = Decoder(config, params).generate(prompts(), settings, [0] * 3, LENGTH, [end]).tokens
    np.testing.assert_array_equal(np.where(found == ABSENT, PAD, found), expected)


searched = jax.jit(beam_search, static_argnums=(0, 5, 6))

BEAMS = [
    *((stop, power, 1.0, 1) for stop in ("false", "true", "never") for power in (1.0, 0.0)),
    *((stop, power, 1.0, 1) for stop in ("false", "never") for power in (2.5, -0.7)),
    ("false", 1.0, 1.3, 1),
    ("false", 1.0, 1.0, 3),
    ("never", 1.0, 1.0, 0),
]


@pytest.mark.parametrize(("stop", "power", "penalty", "ends"), BEAMS)
@pytest.mark.parametrize("name", MODELS)
def test_beams_and_their_scores_equal_theirs(name, stop, power, penalty, ends):
    config, params, reference = model(name)
    stops = likely_ends(name, ends)
    expected = reference.generate(
        torch.tensor(prompts()), max_new_tokens=LENGTH, num_beams=3, num_return_sequences=3,
        do_sample=False, eos_token_id=stops or None, pad_token_id=PAD, length_penalty=power,
        repetition_penalty=penalty, early_stopping={"false": False, "true": True}.get(stop, stop),
        return_dict_in_generate=True, output_scores=True,
    )  # fmt: skip
    beams = BeamConfig(3, early_stopping=stop, repetition_penalty=penalty)
    found = searched(
        config, params, prompts().astype(np.int32), np.int32(6),
        np.int32(stops or [ABSENT]), LENGTH, beams, np.float32(power), np.float32(penalty),
    )  # fmt: skip
    texts = expected.sequences[:, 6:].numpy()
    tokens = np.asarray(found.tokens).reshape(9, LENGTH)
    assert (tokens[:, texts.shape[1] :] == ABSENT).all()
    np.testing.assert_array_equal(np.where(tokens < 0, PAD, tokens)[:, : texts.shape[1]], texts)
    long = power > 2.0  # such a reward for length that no text ends early
    assert not ends or long or (texts == PAD).any(), "nothing ended early"
    scores = np.asarray(found.scores).reshape(-1)
    np.testing.assert_allclose(scores, expected.sequences_scores.numpy(), rtol=2e-4)
