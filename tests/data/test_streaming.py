"""A prepared data set read by Grain while training: batches are those of a cache in all they
promise."""

from pathlib import Path

import numpy as np
import pytest

from jaxhpo.data import Corpus, DataConfig, open_corpus
from jaxhpo.data.splits import parts
from jaxhpo.data.streaming import Streamed
from jaxhpo.data.tokenizers import Bytes
from jaxhpo.errors import UsageError
from tests.data.conftest import BOOKS, book


def config(home: Path, **options: object) -> DataConfig:
    options = {"source": "tfds:own_books", "batch_size": 8, "eval_batches": 2, **options}
    return DataConfig(tfds_dir=str(home), cache=str(home / "cache"), **options)


def stream(home: Path, context: int, **options: object) -> Streamed:
    records, _ = parts("tfds:own_books", config(home))
    return Streamed(records, Bytes(), context, batch_size=8, seed=3, **options)


@pytest.fixture(scope="module")
def one(prepared_sets: Path) -> Streamed:
    """A text and its separator are a row: 31 bytes and one."""
    return stream(prepared_sets, 31, records_per_row=1)


def read(tokens: np.ndarray) -> list[str]:
    return [bytes(row[:-1].tolist()).decode() for row in tokens.reshape(-1, tokens.shape[-1])]


def test_shards_are_disjoint_and_an_epoch_of_all_is_every_text_once(one: Streamed) -> None:
    steps = BOOKS // 8
    for epoch in (0, 3):
        shards = [one.for_shard(host, 4) for host in range(4)]
        texts = [read(shard.batch_at(epoch * steps, steps)["tokens"]) for shard in shards]
        assert [len(set(each)) for each in texts] == [BOOKS // 4] * 4
        assert {text for each in texts for text in each} == {book(i) for i in range(BOOKS)}


def test_four_hosts_read_the_batches_of_one(one: Streamed) -> None:
    whole = one.batch_at(5, 3)["tokens"]
    hosts = [one.for_shard(host, 4).batch_at(5, 3)["tokens"] for host in range(4)]
    np.testing.assert_array_equal(np.concatenate(hosts, axis=1), whole)


def test_a_step_number_is_all_that_resuming_takes(one: Streamed, prepared_sets: Path) -> None:
    whole = one.batch_at(0, 30)["tokens"]
    again = stream(prepared_sets, 31, records_per_row=1)
    np.testing.assert_array_equal(again.batch_at(17, 4)["tokens"], whole[17:21])
    np.testing.assert_array_equal(
        stream(prepared_sets, 31, records_per_row=1, shift=17).batch_at(0, 4)["tokens"],
        whole[17:21],
    )


def test_epochs_and_seeds_have_their_own_orders(one: Streamed, prepared_sets: Path) -> None:
    records, _ = parts("tfds:own_books", config(prepared_sets))
    other = Streamed(records, Bytes(), 31, 8, 1, seed=4)
    orders = [one.records_at(np.arange(BOOKS * at, BOOKS * (at + 1)))[:, 0] for at in range(5)]
    orders.append(other.records_at(np.arange(BOOKS))[:, 0])
    assert all(sorted(order) == list(range(BOOKS)) for order in orders)
    assert len(set(map(tuple, orders))) == 6


def test_a_row_too_short_is_filled_and_one_too_long_is_cut_anywhere(prepared_sets: Path) -> None:
    short = stream(prepared_sets, 199, records_per_row=1).batch_at(0, 2)["tokens"]
    assert short.shape == (2, 8, 200) and (short == 0).sum() >= 2 * 8 * 5
    starts = stream(prepared_sets, 9, records_per_row=1).batch_at(0, 40)["tokens"][..., 0]
    assert len(np.unique(starts)) > 5


def test_a_long_text_is_encoded_in_part_only(prepared_sets: Path, monkeypatch) -> None:
    monkeypatch.setattr("jaxhpo.data.streaming.BYTES_PER_TOKEN", 2)
    tokens = stream(prepared_sets, 7, records_per_row=1).batch_at(0, 6)["tokens"]
    texts = " ".join(book(i) for i in range(BOOKS)).encode()
    for row in tokens.reshape(-1, 8):
        assert bytes(row[: np.argmin(row) or 8].tolist()) in texts


@pytest.fixture(scope="module")
def opened(prepared_sets: Path) -> tuple[Corpus, Corpus]:
    """The same corpus, streamed and from a cache."""
    return tuple(
        open_corpus(config(prepared_sets, stream=stream), 20, seed=3) for stream in (True, False)
    )


def test_a_streamed_corpus_is_scored_on_held_out_texts_as_a_cached_one(opened) -> None:
    streamed, cached = opened
    for corpus in opened:
        assert corpus.held_out["tokens"].shape == (2, 8, 21)
        text = bytes(corpus.held_out["tokens"].ravel().tolist())
        assert b"validation" in text and b"book" not in text
        trained = bytes(corpus.batch_at(0, 20)["tokens"].ravel().tolist())
        assert b"book" in trained and b"valid" not in trained
    assert streamed.bytes_per_token == pytest.approx(cached.bytes_per_token, rel=0.01)
    assert streamed.fingerprints == cached.fingerprints
    assert streamed.train_tokens == pytest.approx(cached.train_tokens, rel=0.01)
    assert streamed.bigram_loss() == pytest.approx(cached.bigram_loss(), rel=0.5)


def test_a_cached_data_set_is_the_same_on_one_and_four_hosts(opened) -> None:
    _, cached = opened
    whole = cached.batch_at(2, 6)["tokens"]
    hosts = [cached.train.for_shard(host, 4).batch_at(2, 6)["tokens"] for host in range(4)]
    np.testing.assert_array_equal(np.concatenate(hosts, axis=1), whole)


def test_a_mixture_may_stream_one_source_and_cache_another(prepared_sets: Path) -> None:
    made = config(prepared_sets, source="mix(tfds:own_books=1, synthetic=1)", stream=True)
    corpus = open_corpus(made, 40, seed=3)
    tokens = corpus.batch_at(0, 20)["tokens"]
    books = [b"book" in bytes(row.tolist()) for row in tokens.reshape(-1, 41)]
    assert 0.2 < np.mean(books) < 0.8
    assert corpus.bigram_loss() > 0


def test_streaming_what_is_no_data_set_is_refused(prepared_sets: Path) -> None:
    with pytest.raises(
        UsageError, match=r"data\.stream with data\.source=stdlib; allowed: .*tfds:"
    ):
        open_corpus(DataConfig(stream=True), 20, seed=0)
    with pytest.raises(UsageError, match=r"data\.batch_size=200 is more than .*allowed: up to 96"):
        open_corpus(config(prepared_sets, stream=True, batch_size=200), 20, seed=0)
