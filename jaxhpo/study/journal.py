"""Answers of a shared database in the run's own log, so that a replay asks nobody."""

from collections.abc import Callable
from typing import Any

from jaxhpo.record.history import History
from jaxhpo.record.log import EventLog
from jaxhpo.study.hosts import PREPARING, Hosts


class LogJournal:
    """A journal (see `search.journal`) whose answers are `answer` events.

    Until a log is bound, answers are held back: a resumed run first says where it goes on from.
    """

    def __init__(self, past: History | None = None, hosts: Hosts | None = None) -> None:
        self._hosts = Hosts() if hosts is None else hosts
        events = () if past is None else past.of("answer")
        self._answers = {event["question"]: event["answer"] for event in events}
        self._waiting: list[str] = []
        self._log: EventLog | None = None

    @property
    def asks(self) -> bool:
        """Whether this process asks; the others are told."""
        return self._hosts.first

    def once(self, question: str, ask: Callable[[], Any]) -> Any:
        if question not in self._answers:
            what = f"the answer to {question}"
            self._answers[question] = self._hosts.from_first(ask, what, PREPARING)
            self._waiting.append(question)
            self._flush()
        return self._answers[question]

    def bind(self, log: EventLog) -> None:
        """From here on answers are on disk before they are acted on; so are those held back."""
        self._log = log
        self._flush()

    def _flush(self) -> None:
        while self._log is not None and self._waiting:
            question = self._waiting.pop(0)
            answer = self._answers[question]
            self._log.append("answer", question=question, answer=answer, fsync=True)
