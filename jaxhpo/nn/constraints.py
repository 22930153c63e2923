"""Where values lie when several devices share a model: asked here by name, answered elsewhere."""

import contextlib
from collections.abc import Callable, Generator
from contextvars import ContextVar
from typing import Any

Constrain = Callable[[str, Any], Any]
"""Name and value -> the value, its layout over devices stated."""

_asked: ContextVar[Constrain] = ContextVar("constrain", default=lambda name, value: value)


def constrain(name: str, value: Any) -> Any:
    """The value, laid out as whoever traces this model wants it; as it is where nobody does.

    Names here: "table" f[V, D] that tokens are looked up in, "stream" f[B, T, D], "heads"
    f[B, T, N, H], "hidden" f[B, T, F], "readout" f[D, V] and "logits" f[B, T, V].
    """
    return _asked.get()(name, value)


@contextlib.contextmanager
def constraining(answer: Constrain) -> Generator[None]:
    """Values named while this lasts, in this thread, get the layout that `answer` gives."""
    token = _asked.set(answer)
    try:
        yield
    finally:
        _asked.reset(token)
