"""Answers of the world outside a search, such as a shared database: events, asked for once.

A plan may depend on such answers, so they are logged before they are acted on; a replay reads them
from the log and asks nobody.
"""

from collections.abc import Callable
from typing import Any, Protocol


class Journal(Protocol):
    """Remembers answers. `once` asks only if `question` has no logged answer, and logs the new one.

    Questions are unique texts, and answers what JSON can hold. The answer must be on disk when
    `once` returns. Where several hosts plan, one of them asks (`asks` is true there alone) and
    tells the others.
    """

    @property
    def asks(self) -> bool: ...

    def once(self, question: str, ask: Callable[[], Any]) -> Any: ...


class Memory:
    """A journal in memory: for a search whose process is never resumed.

    >>> journal = Memory()
    >>> journal.once("ask 0", lambda: 3), journal.once("ask 0", lambda: 4)
    (3, 3)
    """

    asks = True

    def __init__(self, answers: dict[str, Any] | None = None) -> None:
        self.answers: dict[str, Any] = {} if answers is None else answers

    def once(self, question: str, ask: Callable[[], Any]) -> Any:
        if question not in self.answers:
            self.answers[question] = ask()
        return self.answers[question]
