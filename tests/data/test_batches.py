"""Laws of the training batches and of the held-out windows."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxhpo.data.batches import Batches, held_out_windows
from jaxhpo.errors import UsageError

STREAM = np.arange(1000, dtype=np.uint16)
BATCHES = Batches(STREAM, context=7, batch_size=4, seed=3)


@given(st.integers(0, 10**7), st.integers(0, 9), st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_many_steps_at_once_are_the_steps_one_by_one(step: int, steps: int, seed: int) -> None:
    batches = Batches(STREAM, context=7, batch_size=4, seed=seed)
    whole = batches.batch_at(step, steps)["tokens"]
    assert whole.shape == (steps, 4, 8) and whole.dtype == np.int32
    for i in range(steps):
        np.testing.assert_array_equal(whole[i], batches.batch_at(step + i, 1)["tokens"][0])


@pytest.mark.parametrize("size", [21, 28, 33, 64, 1000])
@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_every_window_comes_exactly_once_an_epoch(size: int, epoch: int) -> None:
    batches = Batches(np.arange(size), context=7, batch_size=2, seed=1)
    count = batches.windows
    starts = batches.window_at(np.arange(epoch * count, (epoch + 1) * count))
    assert len(set(starts % 7)) == 1, "windows of one epoch share one offset"
    assert sorted(starts) == [starts.min() + 7 * i for i in range(count)]
    assert starts.min() >= 0 and starts.max() + 7 < size


def test_epochs_differ_in_order_and_offset() -> None:
    starts = BATCHES.window_at(np.arange(20 * BATCHES.windows)).reshape(20, BATCHES.windows)
    assert len(set(map(tuple, starts // 7))) == 20
    assert len(set(starts[:, 0] % 7)) > 3


def test_seeds_give_other_orders() -> None:
    orders = [tuple(Batches(STREAM, 7, 4, seed).window_at(np.arange(9))) for seed in range(20)]
    assert len(set(orders)) == 20


def test_places_of_a_permutation_are_spread_evenly() -> None:
    """Mean rank of the first window over many seeds: within 4 standard errors of the middle."""
    firsts = [
        Batches(STREAM, 7, 4, seed).window_at(np.zeros(1, int))[0] // 7 for seed in range(900)
    ]
    count = BATCHES.windows
    error = count / 12**0.5 / len(firsts) ** 0.5
    assert abs(np.mean(firsts) - (count - 1) / 2) < 4 * error


def test_a_window_is_text_that_follows_itself_and_shares_its_last_target() -> None:
    tokens = BATCHES.batch_at(0, 50)["tokens"]
    assert (np.diff(tokens, axis=-1) == 1).all()


@given(st.lists(st.integers(1, 7), max_size=3, unique=True))
@settings(max_examples=30, deadline=None)
def test_rows_of_the_hosts_tile_the_batch(cuts: list[int]) -> None:
    batches = Batches(STREAM, context=7, batch_size=8, seed=2)
    edges = [0, *sorted(cuts), 8]
    parts = [batches.for_rows(a, b).batch_at(5, 3)["tokens"] for a, b in pairwise(edges)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), batches.batch_at(5, 3)["tokens"])


def test_order_is_golden() -> None:
    """Changing this changes the data of every run, old ones that are resumed too."""
    assert BATCHES.window_at(np.arange(6)).tolist() == [944, 188, 622, 524, 90, 853]


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 9), st.integers(0, 40))
@settings(deadline=None)
def test_no_token_of_the_held_out_part_is_a_target_twice(b: int, e: int, t: int, more: int) -> None:
    stream = np.arange(b * e * t + 1 + more)
    tokens = held_out_windows(stream, t, b, e)["tokens"]
    assert tokens.shape == (e, b, t + 1)
    targets = tokens[..., 1:].ravel()
    assert len(set(targets)) == len(targets)


def test_each_held_out_batch_is_spread_over_the_whole_part() -> None:
    tokens = held_out_windows(np.arange(100_000), 8, 10, 5)["tokens"]
    assert (tokens[:, 0, 0] < 10_000).all() and (tokens[:, -1, 0] > 89_000).all()


def test_a_part_too_short_for_a_batch_is_refused_with_what_would_fit() -> None:
    with pytest.raises(
        UsageError, match=r"1000 tokens.*model\.context=300.*data\.batch_size=4.*200$"
    ):
        Batches(STREAM, context=300, batch_size=4)
    Batches(STREAM, context=200, batch_size=4)
    with pytest.raises(UsageError):
        Batches(STREAM, context=201, batch_size=4)


def test_a_held_out_part_too_short_is_refused_with_what_would_fit() -> None:
    with pytest.raises(UsageError, match=r"data\.eval_batches up to 12"):
        held_out_windows(STREAM, 8, 10, 13)
    held_out_windows(STREAM, 8, 10, 12)
    with pytest.raises(UsageError, match=r"model\.context up to 99"):
        held_out_windows(STREAM, 500, 10, 1)
    held_out_windows(STREAM, 99, 10, 1)
