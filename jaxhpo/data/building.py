"""The token cache of a large corpus: made piece by piece, by several processes, and carried on.

A piece is written whole or not at all. Whoever is killed leaves the finished ones, and the next
builder goes on from them; what comes out is the same to the bit, whoever made which piece.
"""

import contextlib
import fcntl
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import numpy as np

from jaxhpo.data import encoder
from jaxhpo.data.cache import PIECES, Cache, key_of
from jaxhpo.data.encoder import Counts
from jaxhpo.data.progress import Progress
from jaxhpo.data.texts import Texts
from jaxhpo.data.tokenizers import Tokenizer
from jaxhpo.errors import UsageError

PIECE_BYTES = 16 << 20
"""About how much text a piece has; a corpus of no more is made at once, in this process."""
WAIT_SECONDS = 0.2

Piece = tuple[int, int]


def token_stream(
    cache: Cache,
    sha256: str,
    texts: Callable[[], Texts],
    tokenizer: Tokenizer,
    label: str,
    workers: int | None = None,
    check: Callable[[Sequence[Piece], Sequence[Counts]], None] = lambda pieces, counts: None,
) -> tuple[np.ndarray, Counts]:
    """The tokens u[N] of texts with a fingerprint, mapped from the cache, and their counts.

    What is absent is made by `workers` processes (default: one for each core). One process makes a
    stream at a time; others wait for it. `check` may raise for pieces whose counts are wrong.
    Raises UsageError for a text that can't be encoded, and where the cache's disk is full.
    """
    key = key_of("tokens", sha256, tokenizer.fingerprint)
    found = _found(cache, key)
    if found is not None:
        return found
    whole = texts()
    pieces = whole.pieces(PIECE_BYTES)
    if cache.folder is None or len(pieces) == 1:
        made = [encoder.encode(whole, start, stop, tokenizer) for start, stop in pieces]
        check(pieces, [counts for _, counts in made])
        totals = _total([counts for _, counts in made])
        cache.text(_counts(key), lambda: json.dumps(totals))
        return cache.tokens(key, lambda: np.concatenate([tokens for tokens, _ in made])), totals
    with _one_builder(cache.folder / f"tokens-{key}.lock", label):
        if (found := _found(cache, key)) is not None:
            return found
        try:
            return _build(cache, key, whole, pieces, tokenizer, label, workers, check)
        except OSError as error:
            raise UsageError(
                f"data.cache={cache.folder}: {error.strerror or error}; the tokens of {label} need "
                "more room: name another folder with data.cache (what is made so far is kept)"
            ) from None


def _build(
    cache: Cache,
    key: str,
    texts: Texts,
    pieces: Sequence[Piece],
    tokenizer: Tokenizer,
    label: str,
    workers: int | None,
    check: Callable[[Sequence[Piece], Sequence[Counts]], None],
) -> tuple[np.ndarray, Counts]:
    assert cache.folder is not None
    folder = cache.folder / f"tokens-{key}{PIECES}"
    folder.mkdir(mode=0o700, exist_ok=True)
    missing = [piece for piece in pieces if encoder.kept(folder, _name(piece)) is None]
    with Progress(f"tokens of {label}", len(pieces), len(pieces) - len(missing)) as progress:
        about = encoder.portable(tokenizer)
        count = min(workers or _cores(), len(missing))
        if count <= 1 or about is None:
            for start, stop in missing:
                made = encoder.encode(texts, start, stop, tokenizer)
                encoder.keep(folder, _name((start, stop)), *made)
                progress.advance()
        else:
            _encode_together(folder, texts, missing, about, count, progress.advance)
    made = [encoder.kept(folder, _name(piece)) for piece in pieces]
    if None in made:
        raise OSError(f"{folder} lost pieces that were written")
    both = [each for each in made if each is not None]
    try:
        check(pieces, [counts for _, counts in both])
    except UsageError:
        shutil.rmtree(folder, ignore_errors=True)  # of a text that is no more
        raise
    totals = _total([counts for _, counts in both])
    cache.keep_text(_counts(key), json.dumps(totals))
    cache.keep_tokens(key, [tokens for tokens, _ in both])
    del made, both
    shutil.rmtree(folder, ignore_errors=True)
    stream = cache.find_tokens(key)
    if stream is None:
        raise OSError(f"{cache.folder} lost the tokens that were written")
    return stream, totals


def _encode_together(
    folder: Path,
    texts: Texts,
    pieces: Sequence[Piece],
    about: dict[str, str],
    count: int,
    advance: Callable[[], None],
) -> None:
    """Has processes encode pieces, one at a time each. A process whose asker dies ends by itself
    with the piece that it is at."""
    left: queue.SimpleQueue[Piece] = queue.SimpleQueue()
    for piece in pieces:
        left.put(piece)
    done: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
    processes = [_start() for _ in range(count)]
    threads = [
        threading.Thread(target=_drive, args=(each, about, folder, texts, left, done), daemon=True)
        for each in processes
    ]
    try:
        for thread in threads:
            thread.start()
        for _ in pieces:
            if (error := done.get()) is not None:
                raise error
            advance()
    except BaseException:
        for process in processes:
            process.kill()
        raise
    finally:
        for process, thread in zip(processes, threads, strict=True):
            thread.join()
            process.wait()


def _start() -> subprocess.Popen[str]:
    package = str(Path(__file__).parents[2])
    path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "TOKENIZERS_PARALLELISM": "false"}
    return subprocess.Popen(
        [sys.executable, "-m", "jaxhpo.data.encoder"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    )


def _drive(
    process: subprocess.Popen[str],
    about: dict[str, str],
    folder: Path,
    texts: Texts,
    left: "queue.SimpleQueue[Piece]",
    done: "queue.SimpleQueue[BaseException | None]",
) -> None:
    """Gives one process piece after piece, and says of each that it is done, or what went wrong."""
    assert process.stdin is not None and process.stdout is not None
    asked: list[object] = [about]
    try:
        while True:
            try:
                piece = left.get_nowait()
            except queue.Empty:
                return
            try:
                asked += [{"texts": texts.job(*piece), "folder": str(folder), "key": _name(piece)}]
                for line in asked:
                    process.stdin.write(json.dumps(line) + "\n")
                process.stdin.flush()
                answer = json.loads(process.stdout.readline() or '{"gone": true}')
            except (OSError, ValueError):
                answer = {"gone": True}
            asked = []
            error = _error(answer, process)
            done.put(error)
            if error is not None:
                return
    except BaseException as error:  # whoever waits for the pieces must hear of it
        done.put(error)
    finally:
        process.stdout.close()
        with contextlib.suppress(OSError):  # of what is unsent, where the process is gone
            process.stdin.close()


def _error(answer: dict, process: subprocess.Popen[str]) -> BaseException | None:
    if "refused" in answer:
        return UsageError(answer["refused"])
    if "failed" in answer:
        return OSError(*answer["failed"])
    if "gone" in answer:
        return RuntimeError(
            f"a process that makes tokens ended (status {process.wait()}); what is made is kept: "
            "start again, with a smaller data.workers where memory was short"
        )
    return None


@contextlib.contextmanager
def _one_builder(path: Path, label: str) -> Generator[None]:
    """Held by one process; the kernel frees it when that dies. Others wait, and say so once."""
    told = False
    while (handle := _locked(path)) is None:
        if not told:
            print(f"tokens of {label}: another process makes them; waiting", file=sys.stderr)
        told = True
        time.sleep(WAIT_SECONDS)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def _locked(path: Path) -> int | None:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(handle), os.stat(path)):
            return handle
    except FileNotFoundError:  # the last holder has just removed it
        pass
    except BlockingIOError:
        pass
    except OSError:
        return handle  # a disk without locks: pieces are written whole all the same
    os.close(handle)
    return None


def _found(cache: Cache, key: str) -> tuple[np.ndarray, Counts] | None:
    counts = cache.find_text(_counts(key))
    stream = None if counts is None else cache.find_tokens(key)
    return None if counts is None or stream is None else (stream, json.loads(counts))


def _counts(key: str) -> str:
    return key_of("counts", key)


def _total(counts: Sequence[Counts]) -> Counts:
    return {name: sum(each[name] for each in counts) for name in ("bytes", "documents")}


def _name(piece: Piece) -> str:
    return f"{piece[0]:012}-{piece[1]:012}"


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
