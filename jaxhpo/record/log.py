"""The event log: what happened, a line each, only ever appended to: the truth about a run."""

import errno
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from jaxhpo.errors import UsageError
from jaxhpo.record.lines import decode, encode, looks_torn
from jaxhpo.record.paths import fsync_directory
from jaxhpo.record.redaction import redact, redact_text


class LogError(UsageError):
    """The log can't be read or written: names the file, and the line number or the space."""


class EventLog:
    """Appends events; safe to call from several threads of the process that holds the run's lock.

    >>> log = EventLog(path)                                       # doctest: +SKIP
    >>> log.append("plan", index=0, assignments=[], fsync=True)    # doctest: +SKIP
    >>> [event["kind"] for event in read(path)]                    # doctest: +SKIP
    ['plan']

    Reopening a log whose writer died in the middle of a line sets that line apart; the first event
    after it must then be a `rewind`, which tells readers that nothing that counts is missing.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._mutex = threading.RLock()
        self._unwritten = b""
        self._next = 0
        self.torn = False
        """whether the last writer died in a line, and no `rewind` has been appended since"""
        if self.path.is_file():
            self._continue_from_disk()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._descriptor: int | None = os.open(self.path, flags, 0o600)
            fsync_directory(self.path.parent)
        except OSError as error:
            raise LogError(f"can't open the event log {self.path}: {error.strerror}") from None

    @property
    def next_seq(self) -> int:
        """Sequence number of the next event."""
        return self._next

    def append(self, kind: str, *, fsync: bool = False, **fields: Any) -> dict[str, Any]:
        """Write one event and return it; with `fsync` it survives a power cut once this returns.

        Raises `LogError` naming path, needed and free bytes if the disk is full. The file stays
        readable: what had been written of the line is completed by the next call.
        """
        if kind in _ABOUT_THE_RUN:
            fields = _without_secrets(fields)
        with self._mutex:
            if self._descriptor is None:
                raise ValueError(f"the event log {self.path} is closed")
            if self.torn and kind != "rewind":
                raise ValueError(f"after a torn line the next event must be a rewind, not {kind!r}")
            event = {"seq": self._next, "time": round(time.time(), 3), "kind": kind, **fields}
            line = encode(event)
            try:
                self._write(line)
                if fsync:
                    os.fsync(self._descriptor)
            except OSError as error:
                raise _full(self.path, len(line), error) from None
            self.torn = False
            return event

    def close(self) -> None:
        """Idempotent. A line that a full disk cut short is completed if there is room now."""
        with self._mutex:
            if self._descriptor is None:
                return
            try:
                self._flush_unwritten()
                os.fsync(self._descriptor)
            except OSError:
                pass  # the reader takes the line for torn, which it is
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _continue_from_disk(self) -> None:
        content = _content(self.path)
        events, self.torn = _parse(self.path, content)
        self._next = events[-1][1]["seq"] + 1 if events else 0
        if content and not content.endswith(b"\n"):
            self._unwritten = b"\n"

    def _write(self, line: bytes) -> None:
        self._flush_unwritten()
        written = os.write(self._descriptor, line)
        self._next += 1
        self._unwritten = line[written:]
        self._flush_unwritten()

    def _flush_unwritten(self) -> None:
        while self._unwritten:
            written = os.write(self._descriptor, self._unwritten)
            self._unwritten = self._unwritten[written:]


class NoLog(EventLog):
    """A log that takes everything and writes nothing, where another process writes the run's."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path, self.torn, self._next = Path(path), False, 0

    def append(self, kind: str, *, fsync: bool = False, **fields: Any) -> dict[str, Any]:
        return {"seq": 0, "time": 0.0, "kind": kind, **fields}

    def close(self) -> None:
        pass


def read(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """All events of a log in order, rewound ones included; non-finite floats are floats again.

    Raises `LogError` naming the line for anything that a crash can't explain: a changed byte, a
    missing line, a cut line that no `rewind` follows.
    """
    path = Path(path)
    return [event for _, event in _parse(path, _content(path))[0]]


def shortest(values: Any) -> Any:
    """float32 values as the Python floats with the fewest digits that still round to them.

    An array gives a list. For curves: 0.1 is written instead of 0.10000000149011612.

    >>> import numpy as np
    >>> shortest(np.float32(0.1)), shortest(np.array([0.1, np.nan], np.float32))
    (0.1, [0.1, nan])
    """
    import numpy as np

    array = np.asarray(values, np.float32)
    return array.astype(str).astype(np.float64).tolist()


def _content(path: Path) -> bytes:
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            return file.read()
    except OSError as error:
        raise LogError(f"can't read the event log {path}: {error.strerror}") from None


def _parse(path: Path, content: bytes) -> tuple[list[tuple[int, dict[str, Any]]], bool]:
    """Events with their line numbers, and whether the log ends in a torn line."""
    events: list[tuple[int, dict[str, Any]]] = []
    torn: int | None = None
    for number, line in _lines(content):
        try:
            event = decode(line)
        except ValueError as error:
            if not looks_torn(line):
                raise _damaged(path, number, str(error)) from None
            torn = number if torn is None else torn
            continue
        if torn is not None and event["kind"] != "rewind":
            raise _damaged(path, torn, "it is cut off")
        torn = None
        if event.get("seq") != len(events):
            raise _damaged(
                path, number, f"it is event {event.get('seq')} where {len(events)} is due"
            )
        events.append((number, event))
    return events, torn is not None


def _lines(content: bytes) -> Iterator[tuple[int, bytes]]:
    lines = content.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return enumerate(lines, start=1)


def _damaged(path: Path, number: int, reason: str) -> LogError:
    return LogError(f"{path} is damaged at line {number}: {reason}; restore the file from a copy")


def _full(path: Path, needed: int, error: OSError) -> LogError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        free = shutil.disk_usage(path.parent).free
        return LogError(
            f"the disk is full: {path} needs {needed} bytes, {free} are free; "
            "make room, then resume"
        )
    return LogError(f"can't write the event log {path}: {error.strerror}")


_ABOUT_THE_RUN = frozenset({"start", "hardware", "infeasible", "stop"})
"""Events with texts of a person, of the environment or of an error."""


def _without_secrets(fields: dict[str, Any]) -> dict[str, Any]:
    clean = dict(fields)
    for name in ("config", "environment", "space"):
        if isinstance(clean.get(name), dict):
            clean[name] = redact(clean[name])
    for name in ("command", "reason"):
        if isinstance(clean.get(name), str):
            clean[name] = redact_text(clean[name])
    return clean
