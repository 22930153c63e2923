"""One event as one line of JSON with a checksum, and back, without loss.

JSON has no NaN or infinity: they are written as the strings "NaN", "Infinity", "-Infinity" and come
back as floats, except in the fields of `TEXT`, which hold people's words.
"""

import json
import re
import zlib
from collections.abc import Mapping
from typing import Any

TEXT = frozenset({"prompt", "text", "command", "reason", "version", "name", "program", "directory"})
_NON_FINITE = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
_TRAILER = re.compile(rb',"crc":"([0-9a-f]{8})"\}')
_TRAILER_BYTES = 18
_MAX_LINE_BYTES = 256 * 2**20


def encode(event: Mapping[str, Any]) -> bytes:
    """The event as a line, with newline. Raises `ValueError` for a text that reads as a number."""
    body = _dump(event).encode()
    return body[:-1] + b',"crc":"%08x"}\n' % zlib.crc32(body)


def decode(line: bytes) -> dict[str, Any]:
    """The event in a line without its newline. Raises `ValueError` saying what is wrong with it."""
    if len(line) > _MAX_LINE_BYTES:
        raise ValueError("it is too long")
    trailer = _TRAILER.fullmatch(line[-_TRAILER_BYTES:])
    if trailer is None:
        raise ValueError("it is cut off")
    body = line[:-_TRAILER_BYTES] + b"}"
    if b"%08x" % zlib.crc32(body) != trailer[1]:
        raise ValueError("its checksum does not match")
    try:
        event = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
    if not isinstance(event, dict) or not isinstance(event.get("kind"), str):
        raise ValueError("it has no kind")
    if b'"NaN"' in body or b'Infinity"' in body:
        event = _numbers(event)
    return event


def looks_torn(line: bytes) -> bool:
    """Whether a bad line is what a dying writer leaves: a beginning, or blocks never flushed.

    A line that has its end but not its checksum was damaged later.
    """
    return b"\0" in line or _TRAILER.fullmatch(line[-_TRAILER_BYTES:]) is None


def _dump(event: Mapping[str, Any]) -> str:
    try:
        text = json.dumps(event, allow_nan=False, default=_plain, separators=(",", ":"))
        if '"NaN"' not in text and 'Infinity"' not in text:
            return text
    except ValueError:
        pass
    return json.dumps(_strings(event), allow_nan=False, separators=(",", ":"))


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # numpy arrays and scalars, without importing numpy
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} can't be logged")


def _strings(value: Any, key: str = "") -> Any:
    if isinstance(value, str):
        if value in _NON_FINITE and key not in TEXT:
            raise ValueError(f"the text {value!r} in {key!r} would be read as a number")
        return value
    if isinstance(value, float):
        if value != value:
            return "NaN"
        return value if abs(value) != float("inf") else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {name: _strings(item, name) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strings(item, key) for item in value]
    if value is None or isinstance(value, (bool, int)):
        return value
    return _strings(_plain(value), key)


def _numbers(value: Any, key: str = "") -> Any:
    if isinstance(value, str):
        return value if key in TEXT else _NON_FINITE.get(value, value)
    if isinstance(value, dict):
        return {name: _numbers(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item, key) for item in value]
    return value
