"""What a study leaves on disk and tells the trackers, in the order that makes it resumable."""

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxhpo.record.checkpoints import CheckpointError, Store
from jaxhpo.record.log import EventLog, shortest
from jaxhpo.record.trackers.protocol import (
    Exploit,
    RunInfo,
    Snapshot,
    Summary,
    Tracker,
    TrialResult,
)
from jaxhpo.search.plan import Plan, Point, Report
from jaxhpo.study.places import Places

CLIPPED = "clipped/"
"""Begin of the names of shares clipped: what is logged of them is the mean since the last point."""

CURVE_POINTS = 50
"""At most so many points of each curve are logged for one segment."""


class Recorder:
    """One writer for a run: the log first, then the trackers, then the checkpoint that names it."""

    def __init__(
        self,
        log: EventLog,
        store: Store,
        tracker: Tracker,
        total_steps: int,
        tokens_per_step: int,
        save_seconds: float,
    ) -> None:
        self.log, self.store, self.tracker = log, store, tracker
        self.total_steps, self.tokens_per_step = total_steps, tokens_per_step
        self.save_seconds = save_seconds
        self.points: dict[int, Point] = {}
        self._exploits: tuple[Exploit, ...] = ()
        self._begun = self._saved = time.monotonic()
        self._begun_at: int | None = None

    def begin(self, info: RunInfo) -> None:
        self.tracker.start(info)
        self._begun, self._begun_at = time.monotonic(), info.step

    def compiled(self, program: str, seconds: float) -> None:
        self.log.append("compile", program=program, seconds=seconds)

    def planned(self, index: int, plan: Plan) -> None:
        """The plan is on disk when this returns: it is logged before it is acted on."""
        rows = [dataclasses.asdict(row) for row in plan.assignments]
        self.log.append("plan", index=index, assignments=rows, paused=list(plan.paused), fsync=True)
        self._exploits = tuple(
            Exploit(row.trial, row.parent.trial, self._changes(row.parent.trial, row.point))
            for row in plan.assignments
            if row.parent is not None and row.parent.trial != row.trial
        )
        self.points = {row.trial: row.point for row in plan.assignments}

    def reported(
        self,
        index: int,
        plan: Plan,
        report: Report,
        curves: Mapping[int, Mapping[str, np.ndarray]],
        seconds: float,
    ) -> None:
        """The report is on disk when this returns; the trackers have been told."""
        steps = sum(row.steps for row in plan.assignments)
        tokens = steps * self.tokens_per_step
        dense = {trial: _every_step(curve) for trial, curve in curves.items()}
        rare = {str(trial): _diagnosed(curve) for trial, curve in curves.items()}
        self.log.append(
            "report",
            index=index,
            results=[dataclasses.asdict(result) for result in report],
            curves={str(trial): _thinned(curve) for trial, curve in dense.items()},
            diagnostics={trial: curve for trial, curve in rare.items() if curve["step"]},
            seconds=seconds,
            tokens=tokens,
            probe_tokens=sum(row.probe for row in plan.assignments) * self.tokens_per_step,
            step_seconds=seconds / max(steps, 1),
            fsync=True,
        )
        step = max(result.step for result in report)
        groups = {row.trial: row.group for row in plan.assignments}
        self.tracker.segment(
            Snapshot(
                step=step,
                total_steps=self.total_steps,
                results=tuple(
                    TrialResult(r.trial, r.step, r.loss, r.score, groups[r.trial]) for r in report
                ),
                exploits=self._exploits,
                points=self.points,
                curves=dense,
                tokens_per_second=tokens / seconds,
                seconds_left=self._seconds_left(step),
            )
        )

    def save(self, index: int, state: Any, places: Places, last: Any) -> None:
        """Saves in the background when one is due; on the way out (`last`) waits for the commit.

        A save that fails leaves what was committed before; the run goes on and says so, except on
        the way out, where CheckpointError is raised.
        """
        due = time.monotonic() - self._saved >= self.save_seconds
        if not (last or (due and not self.store.busy)):
            return
        try:
            if last:
                self.store.wait()
            self.log.append("saving", index=index, fsync=True)
            metadata = {"trials": list(places.trials), "steps": list(places.steps)}
            self.store.save(index, state, metadata, wait=bool(last))
            self._saved = time.monotonic()
            if last:
                self.store.wait()
        except CheckpointError as error:
            if last:
                raise
            self.tracker.note(f"not saved: {error}")

    def committed(self, index: int, size: int, seconds: float, digest: str) -> None:
        """Called by the store, perhaps from its thread, once a checkpoint is safe."""
        self.log.append(
            "checkpoint",
            index=index,
            directory=f"checkpoints/{index:08d}",
            bytes=size,
            seconds=seconds,
            digest=digest,
            fsync=True,
        )

    def stopped(self, reason: str, index: int) -> None:
        self.log.append("stop", reason=reason, index=index, fsync=True)
        self.tracker.finish(Summary(status="diverged" if reason == "diverged" else "stopped"))

    def _changes(self, parent: int, point: Point) -> dict[str, tuple[Any, Any]]:
        before = self.points.get(parent, {})
        return {k: (before[k], v) for k, v in point.items() if k in before and before[k] != v}

    def _seconds_left(self, step: int) -> float:
        made = step - (self._begun_at or 0)
        elapsed = time.monotonic() - self._begun
        return elapsed / made * (self.total_steps - step) if made > 0 else float("nan")


def _every_step(curve: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The part of a segment's measurements that every step has."""
    plain = ("step", "loss", "lr", "grad_norm")
    return {n: values for n, values in curve.items() if n in plain or n.startswith(CLIPPED)}


def _diagnosed(curve: Mapping[str, np.ndarray]) -> dict[str, list]:
    """The part that only some steps have, at those steps; `step` is empty where there is none."""
    rest = {name: values for name, values in curve.items() if name not in _every_step(curve)}
    made = [np.isfinite(values) for values in rest.values()]
    some = np.any(made, axis=0) if made else np.zeros(len(curve["step"]), bool)
    return _thinned({n: values[some] for n, values in ({"step": curve["step"]} | rest).items()})


def _thinned(curve: Mapping[str, np.ndarray]) -> dict[str, list]:
    """At most CURVE_POINTS of a segment's points, its last one always among them."""
    count = len(curve["step"])
    stride = -(-count // CURVE_POINTS)
    keep = np.arange((count - 1) % stride, count, stride) if count else np.arange(0)

    def kept(name: str, values: np.ndarray) -> list:
        if name == "step":
            return values[keep].tolist()
        if name.startswith(CLIPPED) and count:
            begins = np.concatenate([[0], keep[:-1] + 1])
            return shortest(np.add.reduceat(values, begins) / (keep + 1 - begins))
        return shortest(values[keep])

    return {name: kept(name, values) for name, values in curve.items()}
