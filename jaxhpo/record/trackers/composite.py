"""Several trackers as one, none of which can stop a run."""

from collections.abc import Callable, Sequence
from typing import Any

from jaxhpo.record.trackers.protocol import RunInfo, Snapshot, Summary, Tracker


class Composite:
    """Passes everything on. A tracker that raises is named once and left out from then on."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self._trackers = list(trackers)

    def start(self, info: RunInfo) -> None:
        self._tell(lambda tracker: tracker.start(info))

    def segment(self, snapshot: Snapshot) -> None:
        self._tell(lambda tracker: tracker.segment(snapshot))

    def note(self, text: str) -> None:
        self._tell(lambda tracker: tracker.note(text))

    def finish(self, summary: Summary) -> None:
        self._tell(lambda tracker: tracker.finish(summary))

    def _tell(self, message: Callable[[Tracker], Any]) -> None:
        for tracker in tuple(self._trackers):
            try:
                message(tracker)
            except Exception as error:
                self._trackers.remove(tracker)
                name = type(tracker).__name__
                self.note(f"{name} failed and is left out from here on: {one_line(error)}")


def one_line(error: BaseException) -> str:
    """An exception in at most 200 characters."""
    text = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
