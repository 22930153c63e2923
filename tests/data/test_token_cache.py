"""The cache: what is damaged is made again, and what can't be kept is used all the same."""

import logging
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pytest

from jaxhpo.data.cache import Cache, key_of, user_cache

KEY = key_of("test")
STREAM = np.arange(5000, dtype=np.uint16)


def make() -> np.ndarray:
    return STREAM


def never() -> np.ndarray:
    raise AssertionError("made again")


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache.open(str(tmp_path / "cache"))


def test_what_was_made_once_is_mapped_from_its_file(cache: Cache) -> None:
    cache.tokens(KEY, make)
    again = cache.tokens(KEY, never)
    np.testing.assert_array_equal(again, STREAM)
    assert again.dtype == np.uint16 and not again.flags.writeable


def test_any_damage_is_noticed_and_made_again(
    cache: Cache, caplog: pytest.LogCaptureFixture
) -> None:
    cache.tokens(KEY, make)
    file = next(cache.folder.glob("*.npy"))
    good = file.read_bytes()
    flipped = bytearray(good)
    flipped[700] ^= 1
    for bad in (bytes(flipped), good[:-2], b"", good + b"\0"):
        caplog.clear()
        file.write_bytes(bad)
        np.testing.assert_array_equal(cache.tokens(KEY, make), STREAM)
        assert "is damaged and is made again" in caplog.text
        assert file.read_bytes() == good


def test_a_file_without_its_note_does_not_count(cache: Cache) -> None:
    cache.tokens(KEY, make)
    next(cache.folder.glob("*.npy")).write_bytes(b"half")
    next(cache.folder.glob("*.sum")).unlink()
    np.testing.assert_array_equal(cache.tokens(KEY, make), STREAM)
    cache.tokens(KEY, never)


def test_a_stream_in_use_survives_being_replaced(cache: Cache) -> None:
    cache.tokens(KEY, make)
    mapped = cache.tokens(KEY, never)
    next(cache.folder.glob("*.sum")).write_text("other")
    cache.tokens(KEY, make)
    np.testing.assert_array_equal(mapped, STREAM)


def test_what_can_not_be_written_is_used_and_leaves_nothing(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    np.testing.assert_array_equal(cache.tokens(KEY, make), STREAM)
    assert "No space left on device" in caplog.text
    assert not list(cache.folder.iterdir())


def test_leftovers_of_killed_processes_are_swept_after_a_day(cache: Cache) -> None:
    old, new = cache.folder / ".new-old", cache.folder / ".new-new"
    old.touch()
    new.touch()
    os.utime(old, (time.time() - 90000,) * 2)
    Cache.open(str(cache.folder))
    assert [each.name for each in cache.folder.iterdir()] == [".new-new"]


def test_pieces_that_nobody_goes_on_with_are_swept_after_a_month(cache: Cache) -> None:
    for name, days in (("old", 31), ("new", 29)):
        folder = cache.folder / f"tokens-{name}.pieces"
        folder.mkdir()
        (folder / "piece").touch()
        os.utime(folder, (time.time() - days * 86400,) * 2)
    Cache.open(str(cache.folder))
    assert [each.name for each in cache.folder.iterdir()] == ["tokens-new.pieces"]


def test_processes_may_fill_one_cache_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    others = [
        context.Process(target=_fill_often, args=(str(tmp_path / "cache"),)) for _ in range(2)
    ]
    for each in others:
        each.start()
    _fill_often(str(tmp_path / "cache"))
    for each in others:
        each.join(60)
    assert [each.exitcode for each in others] == [0, 0]
    assert not list((tmp_path / "cache").glob(".new-*"))


def _fill_often(folder: str) -> None:
    logging.disable()
    cache = Cache.open(folder)
    for _ in range(20):
        np.testing.assert_array_equal(cache.tokens(KEY, make), STREAM)
        for file in cache.folder.glob("*.sum"):
            file.unlink(missing_ok=True)
    logging.disable(logging.NOTSET)


def test_the_users_cache_follows_xdg_unless_that_is_relative(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert user_cache() == tmp_path / "xdg" / "jaxhpo"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert user_cache() == tmp_path / ".cache" / "jaxhpo"


def test_without_a_users_cache_everything_is_made_each_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    cache = Cache.open(None)
    np.testing.assert_array_equal(cache.tokens(KEY, make), STREAM)
    assert cache.folder is None and "data.cache" in caplog.text
