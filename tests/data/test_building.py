"""The token cache of a large corpus: in pieces, by several processes, carried on after a kill."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jaxhpo.data import building, encoder
from jaxhpo.data.building import token_stream
from jaxhpo.data.cache import Cache
from jaxhpo.data.config import DataConfig
from jaxhpo.data.documents import Document, fingerprint
from jaxhpo.data.sides import _digests, sides
from jaxhpo.data.splits import parts
from jaxhpo.data.subwords import trained
from jaxhpo.data.texts import Listed
from jaxhpo.data.tokenizers import Bytes
from jaxhpo.errors import UsageError

FILES = 40


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files whose texts make twenty pieces of two."""
    monkeypatch.setattr(building, "PIECE_BYTES", 1500)
    folder = tmp_path / "texts"
    folder.mkdir()
    for i in range(FILES):
        (folder / f"{i:02}.txt").write_text(f"text {i:02} with été and 数, again\n" * 25)
    return folder


def listed(folder: Path) -> Listed:
    return Listed(tuple(Document(path.name, path) for path in sorted(folder.iterdir())))


def build(folder: Path, cache: Path, workers: int | None = 1, tokenizer=None) -> np.ndarray:
    texts = listed(folder)
    cache.mkdir(mode=0o700, exist_ok=True)
    sha256 = fingerprint(texts.read(0, len(texts)))[0]
    tokenizer = tokenizer or Bytes()
    return token_stream(Cache(cache), sha256, lambda: texts, tokenizer, "texts", workers)[0]


def file_of(cache: Path) -> bytes:
    (file,) = cache.glob("tokens-*.npy")
    return file.read_bytes()


def whole(folder: Path) -> bytes:
    return b"".join(path.read_bytes() + b"\0" for path in sorted(folder.iterdir()))


def test_one_process_and_several_make_the_same_file(files: Path, tmp_path: Path) -> None:
    alone = build(files, tmp_path / "one")
    assert alone.tobytes() == whole(files)
    together = build(files, tmp_path / "two", workers=2)
    assert together.dtype == alone.dtype
    assert file_of(tmp_path / "one") == file_of(tmp_path / "two")
    left = {path.name.partition("-")[0] for path in (tmp_path / "two").iterdir()}
    assert left == {"tokens", "text"}, "pieces and lock are gone"
    assert len(list((tmp_path / "two").iterdir())) == 4


def test_processes_have_the_same_trained_tokenizer(files: Path, tmp_path: Path) -> None:
    bpe = trained(300, lambda: listed(files).documents, "", Cache(None))
    build(files, tmp_path / "one", tokenizer=bpe)
    build(files, tmp_path / "two", workers=2, tokenizer=bpe)
    assert file_of(tmp_path / "one") == file_of(tmp_path / "two")


def test_processes_read_a_prepared_data_set(
    prepared_sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = "tfds:own_books"
    found = DataConfig(source=source, tfds_dir=str(prepared_sets))
    records, _ = parts(source, found)
    monkeypatch.setattr(building, "PIECE_BYTES", records.size // 4)
    made = []
    for workers in (1, 2):
        cache = Cache.open(str(tmp_path / f"{workers}"))
        stream, counts = token_stream(cache, "x", lambda: records, Bytes(), source, workers)
        made.append(stream.tobytes())
        assert counts == {"bytes": 96 * 31, "documents": 96}
    assert made[0] == made[1] == b"".join(text + b"\0" for _, text in records.read(0, 96))


SLOW = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from jaxhpo.data import building, encoder
from tests.data.test_building import build
building.PIECE_BYTES = 1500
encode = encoder.encode
def slow(*args):
    time.sleep(0.05)
    return encode(*args)
encoder.encode = slow
build(Path({files!r}), Path({cache!r}))
"""


def test_killed_it_keeps_what_is_finished_and_ends_with_the_same_bits(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed twice, and each time a piece is torn, as a kill inside a write without the rename that
    there is would leave it."""
    build(files, tmp_path / "one")
    cache = tmp_path / "killed"
    cache.mkdir(mode=0o700)
    root = str(Path(__file__).parents[2])
    script = SLOW.format(tests=root, files=str(files), cache=str(cache))
    notes = lambda: sorted(cache.glob("*.pieces/tokens-*.sum"))
    for least in (3, 8):
        process = subprocess.Popen([sys.executable, "-c", script])
        until(lambda least=least: len(notes()) >= least)
        process.send_signal(signal.SIGKILL)
        process.wait()
        torn = notes()[0].with_suffix("")
        torn.write_bytes(torn.read_bytes()[:-7])
    assert not list(cache.glob("tokens-*.npy")) and list(cache.glob("*.lock"))
    before = {note: note.stat().st_mtime_ns for note in notes()[1:]}
    made: list[int] = []
    encode = encoder.encode
    monkeypatch.setattr(
        encoder, "encode", lambda texts, at, *rest: made.append(at) or encode(texts, at, *rest)
    )
    build(files, cache)
    assert file_of(cache) == file_of(tmp_path / "one")
    pieces = len(listed(files).pieces(1500))
    assert len(made) == pieces - len(before) and len(before) >= 7
    assert not list(cache.glob("*.pieces")) and not list(cache.glob("*.lock"))


def until(true: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def test_a_builder_waits_for_the_other_and_uses_what_it_made(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    cache = tmp_path / "cache"
    begun, go = threading.Event(), threading.Event()
    encode, made = encoder.encode, []

    def slow(texts, start, *rest):
        made.append(start)
        begun.set()
        assert go.wait(30)
        return encode(texts, start, *rest)

    monkeypatch.setattr(encoder, "encode", slow)
    threads = [threading.Thread(target=build, args=(files, cache)) for _ in range(2)]
    threads[0].start()
    begun.wait(30)
    threads[1].start()
    until(lambda: "another process makes them; waiting" in capsys.readouterr().err)
    go.set()
    for thread in threads:
        thread.join(30)
    assert len(made) == len(set(made)), "no piece was made twice"
    assert build(files, cache).tobytes() == whole(files)


def test_a_text_that_can_not_be_encoded_is_named_by_whichever_process(
    files: Path, tmp_path: Path
) -> None:
    (files / "33.txt").write_bytes(b"x" * 900 + b"\0")
    for workers in (1, 2):
        with pytest.raises(UsageError, match=r"33\.txt contains a NUL at byte 900"):
            token_stream(Cache(tmp_path), "sha", lambda: listed(files), Bytes(), "texts", workers)


def test_a_process_that_dies_ends_the_build_and_not_what_is_made(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = building._start

    def dying():
        process = start()
        process.kill()
        return process

    monkeypatch.setattr(building, "_start", dying)
    with pytest.raises(RuntimeError, match=r"a process that makes tokens ended \(status -9\)"):
        build(files, tmp_path / "cache", workers=2)
    monkeypatch.undo()
    monkeypatch.setattr(building, "PIECE_BYTES", 1500)
    assert build(files, tmp_path / "cache").tobytes() == whole(files)


def test_a_full_disk_is_named_with_the_option_and_keeps_what_is_made(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes, fsync = [], os.fsync

    def full(handle: int) -> None:
        writes.append(handle)
        if len(writes) > 20:
            raise OSError(28, "No space left on device")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UsageError, match=r"data\.cache=\S+: No space left .* name another folder"):
        build(files, tmp_path / "cache")
    assert len(list((tmp_path / "cache").glob("*.pieces/tokens-*.sum"))) == 5
    monkeypatch.setattr(os, "fsync", fsync)
    assert build(files, tmp_path / "cache").tobytes() == whole(files)


def test_files_that_change_while_they_are_read_are_refused_and_not_cached(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = DataConfig(source=str(files))
    cache = Cache.open(str(tmp_path / "cache"))
    monkeypatch.setattr("jaxhpo.data.sides.PIECE_BYTES", 1500)
    train, _ = sides(str(files), config, cache)
    name, _ = next(train.texts().read(3, 4))
    (files / name).write_text("another text of this length....\n" * 25)
    with pytest.raises(UsageError, match=r"files of data\.source changed while they were read"):
        token_stream(cache, train.sha256, train.texts, Bytes(), "x", 1, train.check)
    assert not list((tmp_path / "cache").glob("tokens-*"))


def test_pieces_are_all_texts_in_order(files: Path) -> None:
    texts = listed(files)
    pieces = texts.pieces(1500)
    assert [start for start, _ in pieces] == [0, *(stop for _, stop in pieces[:-1])]
    assert pieces[-1][1] == FILES and len(pieces) == FILES / 2
    assert len(_digests(texts)["pieces"]) == 1, "of the size that pieces have by default"
