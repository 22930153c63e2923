"""The bigram baseline against a computation by hand."""

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from jaxhpo.data import bigram
from jaxhpo.data.bigram import ADD, PRIOR, bits_per_byte, fit

RANDOM = np.random.default_rng(0)
STREAM = (RANDOM.integers(0, 9, 500) * RANDOM.integers(0, 2, 500)).astype(np.uint16)
WINDOWS = {"tokens": RANDOM.integers(0, 11, (2, 3, 8)).astype(np.int32)}
VOCAB = 11


def by_hand(stream: list[int], windows: list[list[int]], vocab: int) -> float:
    ones, before = Counter(stream), Counter(stream[:-1])
    pairs = Counter(pairwise(stream))
    losses = []
    for window in windows:
        for a, b in pairwise(window):
            alone = (ones[b] + ADD) / (len(stream) + ADD * vocab)
            losses.append(-math.log((pairs[a, b] + PRIOR * alone) / (before[a] + PRIOR)))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("dense", [0, 1024])
@pytest.mark.parametrize("chunk", [3, 64, 10_000])
def test_loss_is_the_one_counted_by_hand(
    dense: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bigram, "DENSE", dense)
    monkeypatch.setattr(bigram, "CHUNK", chunk)
    want = by_hand(STREAM.tolist(), WINDOWS["tokens"].reshape(-1, 8).tolist(), VOCAB)
    assert fit(STREAM, VOCAB).held_out_loss(WINDOWS) == pytest.approx(want, rel=1e-12)


def test_probabilities_after_each_token_sum_to_one() -> None:
    model = fit(STREAM, VOCAB)
    grid = np.stack(np.meshgrid(range(VOCAB), range(VOCAB), indexing="ij"), -1)
    total = np.exp(-model.losses(grid)[..., 0]).sum(-1)
    np.testing.assert_allclose(total, 1.0, rtol=1e-12)


def test_bits_per_byte_of_a_uniform_byte_is_eight() -> None:
    assert bits_per_byte(math.log(256), 1.0) == pytest.approx(8.0)
    assert bits_per_byte(2 * math.log(256), 2.0) == pytest.approx(8.0)
