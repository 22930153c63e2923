"""Mixtures: exact shares in the long run, drawn as if by lot, a function of seed and step."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxhpo.data import DataConfig, open_corpus
from jaxhpo.data.batches import Batches
from jaxhpo.data.mixing import BLOCK, Mixture, counts_of
from jaxhpo.errors import UsageError

CONTEXT, SIZES = 4, (400, 900, 70)
PARTS = tuple(
    Batches(np.full(size, at, np.uint16), CONTEXT, 1, seed=5) for at, size in enumerate(SIZES)
)
WEIGHTS = (0.6, 0.3, 0.1)


def mixture(seed: int = 5, weights: tuple[float, ...] = WEIGHTS, **rows) -> Mixture:
    return Mixture(PARTS, counts_of(weights), batch_size=8, seed=seed, **rows)


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=9), st.integers(9, 5000))
@settings(max_examples=200, deadline=None)
def test_counts_are_whole_sum_to_all_and_are_near_the_weights(
    weights: list[float], whole: int
) -> None:
    counts = counts_of(weights, whole)
    assert sum(counts) == whole and min(counts) >= 1
    near = [abs(n - w / sum(weights) * whole) for n, w in zip(counts, weights, strict=True)]
    rounded_up = sum(w / sum(weights) * whole < 1 for w in weights)
    assert max(near) <= 1 + rounded_up


def test_shares_are_those_of_the_law_of_large_numbers_in_any_run_of_batches() -> None:
    """5 standard errors of independent draws, at once in the first batches and anywhere later."""
    counts = counts_of(WEIGHTS)
    for step, steps in ((0, 20), (0, 2000), (1234, 500), (8000, 500)):
        drawn = mixture().batch_at(step, steps)["tokens"][..., 0]
        for source, count in enumerate(counts):
            share, number = count / BLOCK, drawn.size
            error = (share * (1 - share) / number) ** 0.5
            assert abs((drawn == source).mean() - share) < 5 * error


def test_a_block_has_exactly_the_shares() -> None:
    which, _ = mixture().source_at(np.arange(BLOCK, 2 * BLOCK))
    assert tuple(np.bincount(which)) == counts_of(WEIGHTS)


def test_every_source_goes_through_its_windows_once_an_epoch() -> None:
    which, own = mixture().source_at(np.arange(3 * BLOCK))
    for source, count in enumerate(counts_of(WEIGHTS)):
        assert sorted(own[which == source]) == list(range(3 * count))


def test_windows_are_those_of_the_source_at_its_own_position() -> None:
    streams = tuple(
        Batches(np.arange(size, dtype=np.uint32) + 10_000 * at, CONTEXT, 1, seed=5)
        for at, size in enumerate(SIZES)
    )
    mixed = Mixture(streams, counts_of(WEIGHTS), batch_size=8, seed=5)
    index = np.arange(64).reshape(8, 8)
    which, own = mixed.source_at(index)
    tokens = mixed.batch_at(0, 8)["tokens"]
    for place in np.ndindex(8, 8):
        expected = streams[which[place]].tokens_at(own[place][None])[0]
        np.testing.assert_array_equal(tokens[place], expected)


def test_a_mixture_is_a_function_of_seed_and_step() -> None:
    whole = mixture().batch_at(0, 40)["tokens"]
    np.testing.assert_array_equal(mixture().batch_at(17, 5)["tokens"], whole[17:22])
    moved = Mixture(PARTS, counts_of(WEIGHTS), 8, 5, shift=17)
    np.testing.assert_array_equal(moved.batch_at(0, 5)["tokens"], whole[17:22])
    assert (mixture(seed=6).batch_at(0, 40)["tokens"] != whole).any()


def test_four_hosts_read_the_batches_of_one() -> None:
    whole = mixture().batch_at(3, 9)["tokens"]
    hosts = [mixture().for_shard(host, 4).batch_at(3, 9)["tokens"] for host in range(4)]
    np.testing.assert_array_equal(np.concatenate(hosts, axis=1), whole)


@pytest.fixture
def config(tmp_path: Path):
    (tmp_path / "digits.txt").write_text("0123456789\n" * 900)
    (tmp_path / "signs.txt").write_text("+-*/=#!\n" * 400)

    def make(source: str, **options) -> DataConfig:
        source = source.replace("DIR", str(tmp_path))
        options = {"batch_size": 4, "eval_batches": 5, **options}
        return DataConfig(source=source, cache=str(tmp_path / "cache"), **options)

    return make


def test_a_corpus_of_two_files_has_both_in_their_shares(config) -> None:
    corpus = open_corpus(config("mix(DIR/digits.txt=3, DIR/signs.txt=1)"), 16, seed=1)
    tokens = corpus.batch_at(0, 200)["tokens"]
    signs = np.isin(tokens, list(b"+-*/=#!")).any(-1).mean()
    assert abs(signs - 0.25) < 5 * (0.25 * 0.75 / 800) ** 0.5
    held_out = corpus.held_out["tokens"]
    assert held_out.shape == (5, 4, 17)
    in_signs = np.isin(held_out, list(b"+-*/=#!")).any(-1)
    np.testing.assert_array_equal(in_signs, corpus.held_out_sources == 1)
    assert in_signs.sum() == 5
    assert corpus.bytes_per_token == 1.0
    assert corpus.bigram_loss() < 0.1


def test_another_weight_makes_no_tokens_again_and_is_another_corpus(config, monkeypatch) -> None:
    first = open_corpus(config("mix(DIR/digits.txt=3, DIR/signs.txt=1)"), 16, seed=1)
    monkeypatch.setattr("jaxhpo.data.encoder.encode", None)
    again = open_corpus(config("mix(DIR/digits.txt=3, DIR/signs.txt=1)"), 16, seed=1)
    other = open_corpus(config("mix(DIR/digits.txt=1, DIR/signs.txt=1)"), 16, seed=1)
    assert first.fingerprints == again.fingerprints
    assert first.fingerprints["data"] != other.fingerprints["data"]
    assert first.fingerprints["tokenizer"] == other.fingerprints["tokenizer"]


def test_a_tokenizer_of_a_mixture_knows_every_source(config) -> None:
    source = "mix(DIR/digits.txt=3, DIR/signs.txt=1)"
    made = config(source, tokenizer="bpe", vocab_size=300, eval_batches=2)
    corpus = open_corpus(made, 4, seed=1)
    ids = corpus.tokenizer.encode("+-*/=#!\n0123456789\n")
    assert len(ids) < 12
    others = open_corpus(
        config("mix(DIR/digits.txt=1, DIR/signs.txt=1)", tokenizer="bpe", vocab_size=300), 4, 1
    )
    assert others.fingerprints["tokenizer"] == corpus.fingerprints["tokenizer"]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("mix(stdlib=0.7, x.txt=0)", r"the weight 0 of x\.txt; allowed: a number above 0"),
        ("mix(stdlib=0.7, x.txt=-1)", r"the weight -1 of x\.txt; allowed: a number above 0"),
        ("mix(stdlib=nan, x.txt=1)", r"the weight nan of stdlib"),
        ("mix(stdlib=inf, x.txt=1)", r"the weight inf of stdlib"),
        ("mix(stdlib=a, x.txt=1)", r"the weight a of stdlib"),
        ("mix(stdlib, x.txt=1)", r"'stdlib' is no NAME=WEIGHT; allowed: such as mix\("),
        ("mix()", r"'nothing' is no NAME=WEIGHT"),
        ("mix(stdlib=1,)", r"'nothing' is no NAME=WEIGHT"),
        ("mix(stdlib=1, stdlib=2)", r"names stdlib twice"),
        ("mix(stdlib=1, x.txt=1e-9)", r"the weight of x\.txt is below one part in 65536"),
    ],
)
def test_a_mixture_that_is_none_is_refused_when_the_config_is_made(source, said) -> None:
    with pytest.raises(UsageError, match=said) as error:
        DataConfig(source=source)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("mix(stdlb=1, synthetic=1)", r"data\.source=stdlb is neither .*did you mean stdlib\?"),
        (
            "mix(DIR/digits.txt=1, DIR/signs.txt=30)",
            r"signs\.txt: the held-out part has \d+ tokens",
        ),
    ],
)
def test_a_source_of_a_mixture_that_can_not_be_used_is_named(source, said, config) -> None:
    with pytest.raises(UsageError, match=said) as error:
        open_corpus(config(source, eval_batches=9), 16, seed=0)
    assert "\n" not in str(error.value)


def test_a_mixture_with_more_sources_than_held_out_windows_is_refused(config) -> None:
    source = "mix(DIR/digits.txt=1, DIR/signs.txt=1)"
    with pytest.raises(UsageError, match=r"below the 2 sources of the mixture"):
        open_corpus(config(source, batch_size=1, eval_batches=1), 16, seed=0)
