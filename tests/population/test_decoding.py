"""Text that the compiled programs write: each row's own, whoever stands beside it."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from jaxhpo import nn
from jaxhpo.errors import UsageError
from jaxhpo.nn.config import ModelConfig, SamplingConfig
from jaxhpo.nn.decoding import ABSENT
from jaxhpo.population.decoding import Decoder, sample
from tests.compilations import counted

MODEL = ModelConfig(
    num_layers=2, d_model=16, num_heads=4, num_kv_heads=2, vocab_size=32, context=32, init_std=0.3
)
PROMPTS = [[3, 1, 4, 1, 5], [9, 2], [6, 5, 3, 5, 8, 9, 7]]
ROWS = [SamplingConfig(), SamplingConfig(top_k=9, temperature=1.5), SamplingConfig(top_p=0.7)]
SEEDS = [11, 12, 13]


@pytest.fixture(scope="module")
def params():
    return nn.init(MODEL, jax.random.key(0))


@pytest.fixture(scope="module")
def decoder(params):
    return Decoder(MODEL, params)


@pytest.fixture
def compiled():
    """JAX's compile events from here on, with the persistent cache off."""
    with counted() as events:
        yield events


@pytest.mark.parametrize("length", [20, 90])
def test_a_row_writes_the_same_alone_and_beside_others(decoder, length):
    """Prompts of other lengths, padding, and windows that slide at other times do not matter."""
    together = decoder.generate(PROMPTS, ROWS, SEEDS, length).tokens
    assert together.shape == (3, length) and len(np.unique(together)) > 5
    for row in range(3):
        one = slice(row, row + 1)
        alone = decoder.generate(PROMPTS[one], ROWS[one], SEEDS[one], length).tokens
        np.testing.assert_array_equal(together[row], alone[0])


def test_blocks_of_any_size_give_the_same_text(decoder):
    texts = [decoder.generate(PROMPTS, ROWS, SEEDS, 40, block=n).tokens for n in (1, 7, 64)]
    np.testing.assert_array_equal(texts[0], texts[1])
    np.testing.assert_array_equal(texts[0], texts[2])


def test_new_prompts_values_and_seeds_compile_nothing(decoder, compiled):
    decoder.generate(PROMPTS[:1] * 2, ROWS[1:2] * 2, [1, 2], 30)
    assert len(compiled) <= 2
    del compiled[:]
    other = SamplingConfig(top_k=3, temperature=0.2)
    decoder.generate([[1, 2, 3], [4, 5, 6]], [other, ROWS[1]], [5, 9], 30)
    decoder.generate([[1] * 16, [2] * 16], [ROWS[1], other], [5, 9], 16)
    assert not compiled
    decoder.generate([[1] * 18], [other], [5], 9)
    assert len(compiled) <= 2
    del compiled[:]
    decoder.generate([[2] * 31], [ROWS[1]], [6], 9)
    assert not compiled


def test_the_text_at_the_end_of_a_run_is_one_program(params, compiled):
    prompt = np.array(PROMPTS[0])
    host = jax.tree.map(np.asarray, params)
    texts = [sample(MODEL, host, prompt, 70, 0.8, seed) for seed in (1, 1, 2)]
    assert len(compiled) == 1
    np.testing.assert_array_equal(texts[0], texts[1])
    assert texts[0].shape == (70,) and (texts[0] != texts[2]).any()


def test_the_one_program_writes_what_the_stream_writes(params, decoder):
    whole = sample(MODEL, params, np.array(PROMPTS[0]), 70, 0.8, 5)
    streamed = decoder.generate(PROMPTS[:1], [SamplingConfig()], [5], 70).tokens
    np.testing.assert_array_equal(whole, streamed[0])


def test_a_stop_token_ends_its_row_and_no_other(decoder):
    free = decoder.generate(PROMPTS, ROWS, SEEDS, 24).tokens
    stop = int(free[0, 5])
    ended = decoder.generate(PROMPTS, ROWS, SEEDS, 24, [stop]).tokens
    for row in range(3):
        place = np.flatnonzero(free[row] == stop)
        size = place[0] + 1 if place.size else 24
        np.testing.assert_array_equal(ended[row, :size], free[row, :size])
        assert (ended[row, size:] == ABSENT).all()


def test_past_the_context_a_text_carries_on_from_the_last_half_of_its_window(params, decoder):
    found = decoder.generate(PROMPTS[:1], ROWS[:1], [3], 60)
    tokens = [*PROMPTS[0], *found.tokens[0]]
    apply = jax.jit(lambda tokens: jax.nn.log_softmax(nn.apply(MODEL, params, tokens)))
    start = 0
    for place in range(len(PROMPTS[0]), len(tokens)):
        if place - start > 32:
            start = place - 1 - 16  # the newest token comes on top of the half
        window = np.zeros((1, 32), np.int32)
        window[0, : place - start] = tokens[start:place]
        logs = np.asarray(apply(window))[0, place - start - 1]
        given = found.log_probs[0, place - len(PROMPTS[0])]
        np.testing.assert_allclose(given, logs[tokens[place]], rtol=1e-3, atol=1e-4)


def test_a_row_may_end_where_the_context_ends(decoder):
    found = decoder.generate(PROMPTS, ROWS, SEEDS, 90, beyond="stop").tokens
    sizes = (found != ABSENT).sum(1).tolist()
    assert sizes == [32 - len(prompt) + 1 for prompt in PROMPTS]
    slid = decoder.generate(PROMPTS, ROWS, SEEDS, 90).tokens
    for row, size in enumerate(sizes):
        np.testing.assert_array_equal(found[row, :size], slid[row, :size])


def test_log_probabilities_and_entropies_are_those_of_the_model(params, decoder):
    config = SamplingConfig(temperature=1.3, top_k=5)
    found = decoder.generate(PROMPTS[:1], [config], [4], 20)
    text = np.array([[*PROMPTS[0], *found.tokens[0]]], np.int32)
    logits = np.asarray(nn.apply(MODEL, params, text), np.float64)[0, 4:-1]
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    picked = logs[np.arange(20), found.tokens[0]]
    np.testing.assert_allclose(found.log_probs[0], picked, rtol=1e-3, atol=1e-4)
    top = np.sort(logits / 1.3)[:, -5:]
    chances = np.exp(top) / np.exp(top).sum(-1, keepdims=True)
    entropies = -(chances * np.log(chances)).sum(-1)
    np.testing.assert_allclose(found.entropies[0], entropies, rtol=1e-3, atol=1e-4)


def test_a_penalty_counts_prompt_and_text_and_no_padding(params, decoder):
    settings = [SamplingConfig(greedy=True, repetition_penalty=1.8)]
    text = [3, 1, 4]
    written = decoder.generate([text], settings, [0], 20)
    apply = jax.jit(lambda tokens: nn.apply(MODEL, params, tokens))
    for token, entropy in zip(written.tokens[0], written.entropies[0], strict=True):
        window = np.zeros((1, 32), np.int32)
        window[0, : len(text)] = text
        logits = np.asarray(apply(window))[0, len(text) - 1].copy()
        said = list(set(text))
        logits[said] = np.where(logits[said] < 0, logits[said] * 1.8, logits[said] / 1.8)
        assert logits[token] >= logits.max() - 1e-4
        chances = np.exp(logits) / np.exp(logits).sum()
        np.testing.assert_allclose(entropy, -(chances * np.log(chances)).sum(), rtol=1e-3)
        text = [*text, int(token)]
    assert len(set(text)) < len(text)


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ([], "the prompt is empty"),
        ([1] * 33, "the prompt has 33 tokens; allowed: up to the model's context, 32"),
        ([1, 32], "token 32 is not in the vocabulary; allowed: 0 to 31"),
        ([-1], "token -1 is not in the vocabulary"),
    ],
)
def test_a_prompt_that_cannot_be_read_is_refused(decoder, prompt, says):
    with pytest.raises(UsageError, match=says):
        decoder.generate([prompt], ROWS[:1], [0], 4)


def test_a_bidirectional_model_writes_nothing(params):
    with pytest.raises(UsageError, match="bidirectional"):
        Decoder(replace(MODEL, attention="bidirectional"), params)
