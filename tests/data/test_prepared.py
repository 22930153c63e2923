"""Data sets of tensorflow-datasets, read from this machine without tensorflow."""

import importlib.util
import json
import shutil
import socket
import sys
import time
from pathlib import Path

import pytest

from jaxhpo.data import prepared, remote, splits
from jaxhpo.data.config import DataConfig, ExamplesConfig
from jaxhpo.data.examples import read_examples
from jaxhpo.errors import UsageError


def config(home: Path, source: str, **options: object) -> DataConfig:
    return DataConfig(source=source, tfds_dir=str(home), **options)


def numbers(part: splits.Records) -> list[str]:
    return [name.rpartition("/")[2] for name, _ in part.read(0, len(part))]


def test_examples_come_with_their_splits_and_the_names_of_their_labels(prepared_sets: Path) -> None:
    found = config(prepared_sets, "tfds:imdb_reviews")
    parts = read_examples(found, ExamplesConfig(), "classification")
    assert set(parts.train.texts) == {f"train é{i}" for i in range(6)}
    assert set(parts.held_out.texts) == {f"test é{i}" for i in range(6)}
    assert parts.classes == ("neg", "pos")
    columns = parts.train.texts, parts.train.labels
    assert {text[-1] for text, y in zip(*columns, strict=True) if y} == set("135")
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize(
    ("name", "train", "held_out"),
    [
        ("tfds:own_books", ("train", 0, 96), ("validation", 0, 8)),  # there is a validation split
        ("tfds:lm1b", ("train", 0, 40), ("test", 0, 40)),  # the table says so
        ("tfds:imdb_reviews", ("train", 0, 5), ("train", 5, 6)),  # test is left for the end
        ("tfds:own_books@train[:50%]", ("train", 0, 48), ("validation", 0, 8)),
        ("tfds:own_books@train[90:]", ("train", 90, 96), ("validation", 0, 8)),
        ("tfds:own_books@validation", ("validation", 0, 7), ("validation", 7, 8)),
        ("tfds:imdb_reviews@test[-4:]", ("test", 2, 5), ("test", 5, 6)),
    ],
)
def test_what_is_held_out_is_never_trained_on(name, train, held_out, prepared_sets: Path) -> None:
    found = splits.parts(name, config(prepared_sets, name))
    assert [(part.split, part.start, part.stop) for part in found] == [train, held_out]


def test_texts_are_bytes_or_text_and_what_is_neither_can_be_shown(prepared_sets: Path) -> None:
    train, _ = splits.parts("tfds:own_dirt", config(prepared_sets, "tfds:own_dirt"))
    texts = {text.decode() for _, text in train.read(0, len(train))}
    assert texts == {"caf\ufffd", "a\ufffdb", "été", "plain"}
    from jaxhpo.data.records import _text

    assert _text("été") == _text("été".encode()) == "été".encode()


def test_any_records_are_read_in_any_order(prepared_sets: Path) -> None:
    train, _ = splits.parts("tfds:own_books", config(prepared_sets, "tfds:own_books"))
    texts = dict(train.read(0, len(train)))
    assert len(texts) == len(set(texts.values())) == 96
    names = list(texts)
    assert train.at([7, 3, 3]) == [texts[names[7]], texts[names[3]], texts[names[3]]]
    assert dict(train.read(10, 12)) == {name: texts[name] for name in names[10:12]}


def test_pieces_are_all_records_and_a_job_reads_the_same(prepared_sets: Path) -> None:
    from jaxhpo.data.texts import reopen

    train, _ = splits.parts("tfds:own_books", config(prepared_sets, "tfds:own_books"))
    pieces = train.pieces(train.size // 5)
    assert len(pieces) == 5 and pieces[0][0] == 0 and pieces[-1][1] == 96
    read = []
    for start, stop in pieces:
        again = reopen(json.loads(json.dumps(train.job(start, stop))))
        read += again.read(0, len(again))
    assert read == list(train.read(0, 96))


def test_a_fingerprint_is_of_the_texts_and_not_of_the_folder(
    prepared_sets: Path, tmp_path: Path
) -> None:
    shutil.copytree(prepared_sets / "own_books", tmp_path / "own_books")
    found = [
        splits.parts(name, config(home, name))[0].fingerprint
        for home, name in (
            (prepared_sets, "tfds:own_books"),
            (tmp_path, "tfds:own_books"),
            (tmp_path, "tfds:own_books@train[:90]"),
        )
    ]
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("tfds:glue/sst2", r"not prepared under .*tfds build glue/sst2 --file_format=array_record"),
        ("tfds:glue/sst3", r"the data set glue has no config sst3; did you mean sst2\?"),
        ("tfds:imdb_review", r"there is no data set imdb_review; did you mean imdb_reviews\?"),
        ("tfds:own_book", r"there is no data set own_book; did you mean own_books\?"),
        ("tfds:odd_set", r"prepared as tfrecord.*tfds build odd_set --file_format=array_record"),
        ("tfds:imdb_reviews:9.9.9", r"imdb_reviews:9\.9\.9 is not prepared"),
        ("tfds:../x", r"allowed: tfds:NAME"),
        ("tfds:own_books@dev", r"there is no split dev; it has train, validation"),
        ("tfds:own_books@train[5:5]", r"has no examples: train has 96, and 5 to 5"),
        ("tfds:own_books@train[a:]", r"train\[a:\] is no split; allowed: .* train\[:5%\]"),
        ("tfds:own_books@validation[:1]", r"has 1 example\(s\); too few to hold out"),
    ],
)
def test_what_can_not_be_read_is_answered_at_once_with_what_helps(
    source: str, said: str, prepared_sets: Path
) -> None:
    begin = time.monotonic()
    with pytest.raises(UsageError, match=said) as error:
        splits.parts(source, config(prepared_sets, source))
    assert "\n" not in str(error.value)
    assert time.monotonic() - begin < 20


def test_a_column_is_asked_for_by_name_and_must_be_text(prepared_sets: Path) -> None:
    source = "tfds:own_books"
    named = config(prepared_sets, source, column="text")
    assert splits.parts(source, named) == splits.parts(source, config(prepared_sets, source))
    with pytest.raises(UsageError, match=r"data\.column=label: .*no such text; it has text"):
        splits.parts(source, config(prepared_sets, source, column="label"))


def test_an_unknown_split_is_refused_with_those_there_are(prepared_sets: Path) -> None:
    found = config(prepared_sets, "tfds:imdb_reviews")
    with pytest.raises(UsageError, match=r"no split dev; it has .*train"):
        read_examples(found, ExamplesConfig(held_out="dev"), "classification")


def test_a_folder_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"data\.tfds_dir=\S*nowhere is no folder"):
        prepared.find("tfds:lm1b", str(tmp_path / "nowhere"))


def test_damaged_records_are_named_in_one_line(prepared_sets: Path, tmp_path: Path) -> None:
    shutil.copytree(prepared_sets / "own_books", tmp_path / "own_books")
    for file in (tmp_path / "own_books").rglob("*train.array_record*"):
        file.write_bytes(file.read_bytes()[:100])
    train, _ = splits.parts("tfds:own_books", config(tmp_path, "tfds:own_books"))
    with pytest.raises(UsageError, match=r"own_books: .* can't be read \(.*prepare or copy it"):
        list(train.read(0, 96))


def test_cloud_storage_without_gcsfs_or_network_is_answered_in_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"tfds_dir=gs://a/b is read by gcsfs.*pip install gcsfs"):
        prepared.find("tfds:lm1b", "gs://a/b")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(remote, "ANSWER_SECONDS", 0.2)
    for silence in (lambda *_: time.sleep(9), _no_name):
        monkeypatch.setattr(socket, "getaddrinfo", silence)
        begin = time.monotonic()
        with pytest.raises(UsageError, match=r"can't reach storage\.googleapis\.com; copy"):
            prepared.find("tfds:lm1b", "gs://a/b")
        assert time.monotonic() - begin < 5


def _no_name(*_: object) -> None:
    raise socket.gaierror(-3, "Temporary failure in name resolution")


def test_what_a_folder_in_cloud_storage_says_of_itself_is_read(
    prepared_sets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files of a data set in fsspec's memory, under the name that Cloud Storage has there."""
    from etils.epath import backend
    from fsspec.implementations.memory import MemoryFileSystem

    class Storage(MemoryFileSystem):
        """Names begin with the bucket, as gcsfs has them."""

        protocol = ("gcs", "gs")
        store: dict = {}  # noqa: RUF012
        pseudo_dirs = [""]  # noqa: RUF012

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return super()._strip_protocol(path.removeprefix("gs://"))

        def glob(self, path: str, **options: object) -> list[str]:
            return [found.removeprefix("/") for found in super().glob(path, **options)]

    monkeypatch.setattr(backend.fsspec_backend, "_get_filesystem", lambda name: Storage())
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(remote, "reachable", lambda host: True)
    for file in (prepared_sets / "own_books").rglob("*.json"):
        with Storage().open(f"bucket/sets/{file.relative_to(prepared_sets)}", "wb") as copy:
            copy.write(file.read_bytes())
    source = "tfds:own_books"
    train, held_out = splits.parts(source, DataConfig(source=source, tfds_dir="gs://bucket/sets"))
    assert (len(train), len(held_out)) == (96, 8)
    assert train.folder == "gs://bucket/sets/own_books/1.0.0"
    with pytest.raises(UsageError, match="imdb_reviews is not prepared under gs://bucket/sets"):
        prepared.find("tfds:imdb_reviews", "gs://bucket/sets")
