"""What holds of a run: its events after every rewind has been applied."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxhpo.record.log import LogError, read

Event = dict[str, Any]
_UNDONE_BY_INDEX = frozenset(
    {"plan", "births", "report", "saving", "checkpoint", "best", "infeasible"}
)
_ABOUT_THE_END = frozenset({"stop", "finish", "sample"})


@dataclass(frozen=True)
class History:
    """A run's events by kind, in order. Entry `i` of `plans` and `reports` has `index` `i`."""

    path: Path
    events: tuple[Event, ...] = field(repr=False)
    """all that holds"""
    rewinds: int
    """how many times the run was continued from an earlier report"""
    rewound_seconds: float = 0.0
    """of segments that were done again"""

    @property
    def start(self) -> Event | None:
        """The first start: the resolved config and the fingerprints that a resume must match."""
        return self._first("start")

    @property
    def baseline(self) -> Event | None:
        return self._last("baseline")

    @property
    def finish(self) -> Event | None:
        return self._last("finish")

    @property
    def fork(self) -> Event | None:
        """Where a forked run comes from, None of a run that began from scratch."""
        return self._first("fork")

    @property
    def births(self) -> dict[int, dict[str, Any]]:
        """By trial: `index`, `parent`, `step`, `reason`, `kept` and the point's `difference`."""
        return {
            row["trial"]: {**row, "index": event["index"]}
            for event in self.of("births")
            for row in event["trials"]
        }

    @property
    def plans(self) -> tuple[Event, ...]:
        return self.of("plan")

    @property
    def reports(self) -> tuple[Event, ...]:
        return self.of("report")

    @property
    def checkpoints(self) -> tuple[Event, ...]:
        return self.of("checkpoint")

    @property
    def compiles(self) -> tuple[Event, ...]:
        return self.of("compile")

    @property
    def samples(self) -> tuple[Event, ...]:
        return self.of("sample")

    def of(self, kind: str) -> tuple[Event, ...]:
        """The events of one kind."""
        return tuple(event for event in self.events if event["kind"] == kind)

    def curves(self) -> dict[int, dict[str, list[float]]]:
        """Training curves by trial over the whole run: `step`, `loss`, `lr`, `grad_norm`, ..."""
        whole: dict[int, dict[str, list[float]]] = {}
        for report in self.reports:
            for trial, curve in report.get("curves", {}).items():
                joined = whole.setdefault(int(trial), {})
                for name, values in curve.items():
                    joined.setdefault(name, []).extend(values)
        return whole

    def exploits(self) -> list[dict[str, Any]]:
        """Copies between trials: `index`, `trial`, `parent`, `before` and `after` (points)."""
        found, points = [], {}
        for plan in self.plans:
            for row in plan["assignments"]:
                trial, parent = row["trial"], row.get("parent")
                if parent is not None and parent["trial"] != trial:
                    before = points.get(trial, {})
                    found.append(
                        {
                            "index": plan["index"],
                            "trial": trial,
                            "parent": parent["trial"],
                            "before": before,
                            "after": row["point"],
                        }
                    )
            points.update({row["trial"]: row["point"] for row in plan["assignments"]})
        return found

    def _first(self, kind: str) -> Event | None:
        return next(iter(self.of(kind)), None)

    def _last(self, kind: str) -> Event | None:
        return next(reversed(self.of(kind)), None)


def history(path: str | os.PathLike[str]) -> History:
    """The history in a log, or in the log of a run directory. Raises `LogError`."""
    path = Path(path)
    if path.is_dir():
        path = path / "events.jsonl"
    kept: list[Event] = []
    rewinds, lost = 0, 0.0
    for event in read(path):
        if event["kind"] == "rewind":
            gone = [old for old in kept if not _survives(old, event["index"])]
            kept = [old for old in kept if _survives(old, event["index"])]
            lost += sum(old.get("seconds", 0.0) for old in gone if old["kind"] == "report")
            rewinds += 1
        else:
            kept.append(event)
    result = History(path, tuple(kept), rewinds, lost)
    _check_order(path, result.plans)
    _check_order(path, result.reports)
    return result


def _survives(event: Mapping[str, Any], index: int) -> bool:
    # by index, not by place: an asynchronous checkpoint of report 4 may be committed after report 5
    if event["kind"] in _ABOUT_THE_END:
        return False
    return event["kind"] not in _UNDONE_BY_INDEX or event["index"] <= index


def _check_order(path: Path, events: tuple[Event, ...]) -> None:
    for due, event in enumerate(events):
        if event.get("index") != due:
            raise LogError(
                f"{path}: event {event['seq']} is {event['kind']} {event.get('index')} "
                f"where {due} is due"
            )
