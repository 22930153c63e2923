"""Values as people write them in the text of a space: numbers, whole numbers, words."""

import difflib
import math
import re
from collections.abc import Sequence

from jaxhpo.errors import UsageError
from jaxhpo.search.plan import Value

LARGEST_WHOLE = "a whole number up to 2147483647"

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_WHOLE = re.compile(r"[+-]?\d{1,18}")
_WORD = re.compile(r"[A-Za-z_][\w.:/+-]*")
_NON_FINITE = {"nan", "inf", "infinity"}


def read_number(text: str) -> float:
    if not _NUMBER.fullmatch(text) or not math.isfinite(float(text)):
        raise UsageError(f"{text!r} is not a finite number")
    return float(text)


def read_whole(text: str) -> int:
    if not _WHOLE.fullmatch(text):
        raise UsageError(f"{text!r} is not {LARGEST_WHOLE}")
    return int(text)


def read_value(text: str) -> Value:
    """A number if it looks like one, else a plain word. Raises UsageError if it is neither."""
    if _WHOLE.fullmatch(text):
        return int(text)
    if _NUMBER.fullmatch(text):
        return read_number(text)
    if not _WORD.fullmatch(text) or text.lower() in _NON_FINITE:
        raise UsageError(f"{text!r} is neither a finite number nor a plain word")
    return text


def print_value(value: Value) -> str:
    return value if isinstance(value, str) else repr(value)


def nearest(name: str, known: Sequence[str]) -> str:
    """The end of an error message: the known name nearest to a mistyped one, else all of them.

    >>> nearest("ahsa", ["asha", "grid"]), nearest("genetic", ["asha", "grid"])
    ("; the nearest is 'asha'", '; allowed: asha, grid')
    """
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if near:
        return f"; the nearest is {near[0]!r}"
    return f"; allowed: {', '.join(known)}" if known else "; there are none"
