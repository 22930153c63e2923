"""A tracker that tells nobody."""

from jaxhpo.record.trackers.protocol import RunInfo, Snapshot, Summary


class NoTracker:
    """Takes everything, does nothing."""

    def start(self, info: RunInfo) -> None:
        pass

    def segment(self, snapshot: Snapshot) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def finish(self, summary: Summary) -> None:
        pass
