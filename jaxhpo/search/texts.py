"""Distributions from the texts that people write, strictly: nothing is ever evaluated."""

import re
from collections.abc import Callable

from jaxhpo.errors import UsageError
from jaxhpo.search.distributions import (
    Choice,
    Distribution,
    Integer,
    Log,
    LogInteger,
    Normal,
    Uniform,
)
from jaxhpo.search.rules import Rule, parse_rule
from jaxhpo.search.values import read_number, read_value, read_whole

FORMS = (
    "uniform(low, high), log(low, high), normal(mean, deviation) or normal(mean, deviation, low, "
    "high), int(low, high), logint(low, high), choice(a, b, ...), and '... if NAME in (a, b)'"
)

_CALL = re.compile(r"\s*([a-z]+)\s*\((.*)\)\s*", re.DOTALL)
_IF = re.compile(r"\)\s*if\s")
_REAL: dict[str, Callable[..., Distribution]] = {"uniform": Uniform, "log": Log}
_WHOLE: dict[str, Callable[..., Distribution]] = {"int": Integer, "logint": LogInteger}


def parse(name: str, text: str) -> Distribution:
    """The distribution that `text` describes. Raises UsageError naming dimension, text and forms.

    >>> parse("schedule.peak_lr", "log(1e-4, 1e-1)")
    Log(low=0.0001, high=0.1)
    """
    try:
        return _distribution(text)
    except UsageError as reason:
        raise UsageError(f"space {name} = {text!r}: {reason}; allowed: {FORMS}") from None


def parse_dimension(name: str, text: str) -> tuple[Distribution, Rule | None]:
    """The distribution, and the rule under which the dimension exists, if there is one.

    >>> distribution, when = parse_dimension("b", "uniform(0, 1) if a in (x, y) and c > 2")
    >>> str(when)
    'a in (x, y) and c > 2'
    """
    found = _IF.search(text)
    if found is None:
        return parse(name, text), None
    try:
        return _distribution(text[: found.start() + 1]), parse_rule(text[found.end() :])
    except UsageError as reason:
        raise UsageError(f"space {name} = {text!r}: {reason}; allowed: {FORMS}") from None


def _distribution(text: str) -> Distribution:
    call = _CALL.fullmatch(text)
    if call is None or call[1] not in (*_REAL, *_WHOLE, "normal", "choice"):
        raise UsageError("not a distribution")
    items = [item.strip() for item in call[2].split(",")] if call[2].strip() else []
    if call[1] == "choice":
        return Choice(tuple(read_value(item) for item in items))
    if call[1] == "normal":
        if len(items) not in (2, 4):
            raise UsageError(f"normal takes mean and deviation, and may take two bounds: {text}")
        return Normal(*(read_number(item) for item in items))
    if len(items) != 2:
        raise UsageError(f"{call[1]} takes two bounds, got {len(items)}")
    if call[1] in _WHOLE:
        return _WHOLE[call[1]](*(read_whole(item) for item in items))
    return _REAL[call[1]](*(read_number(item) for item in items))
