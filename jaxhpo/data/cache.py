"""A folder of files that can be made again: keyed by content, written whole, verified when read."""

import contextlib
import hashlib
import io
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from jaxhpo.errors import UsageError

VERSION = 2
UNFINISHED, PIECES = ".new-", ".pieces"
log = logging.getLogger("jaxhpo.data")


def key_of(*parts: object) -> str:
    """A name for what is made from these parts (JSON values), and from nothing else."""
    return hashlib.sha256(json.dumps([VERSION, *parts]).encode()).hexdigest()


def user_cache() -> Path:
    """jaxhpo's folder in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path("~/.cache").expanduser()) / "jaxhpo"


@dataclass(frozen=True)
class Cache:
    """Processes may share one: a file appears whole or not at all; equal keys, equal content.

    Without a folder, or where it can't be written, everything is made each time.
    """

    folder: Path | None

    @classmethod
    def open(cls, folder: str | None) -> "Cache":
        """The cache in a folder, made if absent (mode 0700); None: the user's.

        Raises UsageError for a folder that everyone may write to, and for a named one that can't be
        made. Where the user's own can't be made, there is a note and no cache.
        """
        try:
            path = Path(folder).expanduser() if folder else user_cache()
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            mode = path.stat().st_mode
        except (OSError, RuntimeError) as error:
            if folder:
                raise UsageError(f"data.cache={folder} can't be made: {_reason(error)}") from None
            log.warning("no cache: %s; name a folder with data.cache", _reason(error))
            return cls(None)
        if mode & 0o002:
            raise UsageError(
                f"data.cache={path} may be written by everyone; allowed: a folder of your own "
                f"(chmod o-w {path})"
            )
        _sweep(path)
        return cls(path)

    def tokens(self, key: str, build: Callable[[], np.ndarray]) -> np.ndarray:
        """The tokens with a key, u[N] mapped from their file; `build` makes them if needed."""
        if (found := self.find_tokens(key)) is not None:
            return found
        stream = build()
        with self._noted():
            self.keep_tokens(key, [stream])
        return stream

    def find_tokens(self, key: str) -> np.ndarray | None:
        """The tokens with a key, mapped from their file, if they are there and undamaged."""
        if path := self._verified(f"tokens-{key}.npy"):
            mapped = np.load(path, mmap_mode="r", allow_pickle=False)
            return mapped.view(np.ndarray)
        return None

    def keep_tokens(self, key: str, pieces: Sequence[np.ndarray]) -> None:
        """Writes tokens that follow each other as one array; OSError where that can't be done."""
        dtype, shape = pieces[0].dtype, (sum(map(len, pieces)),)
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False}

        def write(file: IO[bytes]) -> None:
            np.lib.format.write_array_header_1_0(file, {**header, "shape": shape})
            for piece in pieces:
                file.write(np.ascontiguousarray(piece, dtype).data)

        self._put(f"tokens-{key}.npy", write)

    def text(self, key: str, build: Callable[[], str], keep: bool = True) -> str:
        """The text with a key; `build` makes it if needed, and it stays unless not to be kept."""
        if (found := self.find_text(key)) is not None:
            return found
        text = build()
        if keep:
            with self._noted():
                self.keep_text(key, text)
        return text

    def find_text(self, key: str) -> str | None:
        """The text with a key, if it is there and undamaged."""
        path = self._verified(f"text-{key}.json")
        return None if path is None else path.read_text("utf-8")

    def keep_text(self, key: str, text: str) -> None:
        """Writes a text; OSError where that can't be done."""
        self._put(f"text-{key}.json", lambda file: file.write(text.encode()))

    def _verified(self, name: str) -> Path | None:
        """The file if it is there with the size and digest noted beside it."""
        if self.folder is None:
            return None
        path, note = self.folder / name, self.folder / f"{name}.sum"
        try:
            expected = note.read_text("utf-8")
            with path.open("rb") as file:
                found = _sum(file)
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            log.warning("%s can't be read (%s) and is made again", path, _reason(error))
            return None
        if found != expected:
            log.warning("%s is damaged and is made again", path)
            return None
        return path

    def _put(self, name: str, write: Callable[[IO[bytes]], object]) -> None:
        """The file, then the note that makes it valid; each is replaced at once."""
        if self.folder is None:
            return
        with _Replaced(self.folder / name) as file:
            write(file)
        with (self.folder / name).open("rb") as file:
            found = _sum(file)
        with _Replaced(self.folder / f"{name}.sum") as file:
            file.write(found.encode())

    @contextlib.contextmanager
    def _noted(self) -> Generator[None]:
        """What can't be kept is used all the same, and noted."""
        try:
            yield
        except OSError as error:
            log.warning("not cached, %s: %s", self.folder, _reason(error))


class _Replaced:
    """A file that takes the place of another only once it is whole and on the disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> IO[bytes]:
        handle, self.name = tempfile.mkstemp(prefix=UNFINISHED, dir=self.path.parent)
        self.file = os.fdopen(handle, "w+b")
        return self.file

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            with self.file:
                if kind is None:
                    self.file.flush()
                    os.fsync(self.file.fileno())
            if kind is None:
                os.replace(self.name, self.path)
        finally:
            if os.path.exists(self.name):
                os.unlink(self.name)


def _sweep(folder: Path) -> None:
    """Removes what processes that were killed while writing left behind, a day ago or more, and the
    pieces of streams that nobody went on with for a month."""
    for pattern, days in ((f"{UNFINISHED}*", 1), (f"*{PIECES}", 30)):
        for left in folder.glob(pattern):
            with contextlib.suppress(OSError):
                if left.stat().st_mtime < time.time() - days * 86400:
                    shutil.rmtree(left) if left.is_dir() else left.unlink()


def _sum(file: io.BufferedReader) -> str:
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    return json.dumps({"bytes": file.tell(), "sha256": digest})


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error)
