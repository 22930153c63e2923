"""What a study leaves on disk and tells the trackers, in the order that makes it resumable."""

import dataclasses
import hashlib
import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxhpo.record.checkpoints import CheckpointError, Store
from jaxhpo.record.directory import RunDirectory
from jaxhpo.record.keeping import KEEP, LOSS
from jaxhpo.record.log import EventLog
from jaxhpo.record.trackers.protocol import (
    Exploit,
    RunInfo,
    Snapshot,
    Summary,
    Tracker,
    TrialResult,
)
from jaxhpo.search.plan import Assignment, Plan, Point, Report, Result
from jaxhpo.study.births import birth
from jaxhpo.study.curves import diagnosed, every_step, thinned
from jaxhpo.study.groups import Groups
from jaxhpo.study.kept import populations
from jaxhpo.study.meter import Meter, known
from jaxhpo.study.origin import Origin
from jaxhpo.study.saved import as_safetensors, member_at

BEST = "best/model.safetensors"


@dataclasses.dataclass(frozen=True)
class Spent:
    """What a segment cost: tokens trained and probed, and steps of lanes that trained nobody."""

    tokens: int = 0
    probe_tokens: int = 0
    idle_steps: int = 0
    flops: float = 0.0
    """operations of training and probes; 0 where they are not known"""

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(
            self.tokens + other.tokens,
            self.probe_tokens + other.probe_tokens,
            self.idle_steps + other.idle_steps,
            self.flops + other.flops,
        )


class Recorder:
    """One writer for a run: the log first, then the trackers, then the checkpoint that names it."""

    def __init__(
        self,
        run: RunDirectory,
        log: EventLog,
        store: Store,
        tracker: Tracker,
        total_steps: int,
        member_steps: int,
        save_seconds: float,
        always: Mapping[int, str] | None = None,
        origin: Origin | None = None,
        meter: Meter | None = None,
    ) -> None:
        self.run, self.log, self.store, self.tracker = run, log, store, tracker
        self.total_steps, self.member_steps = total_steps, member_steps
        self.save_seconds, self.origin = save_seconds, origin
        self.meter = Meter() if meter is None else meter
        self.always = dict(always or {})
        """steps whose checkpoint is kept for good and is still to come, with the reason"""
        self.points: dict[int, Point] = {}
        self.steps: dict[int, int] = {}
        self.loss: float | None = None
        """the lowest of the newest report, None where none is finite"""
        self.made = 0
        """member-steps trained so far, those of an earlier process included"""
        self.rows = 0
        """steps that curves have had points at so far, and one for each report"""
        self._exploits: tuple[Exploit, ...] = ()
        self._begun = self._saved = time.monotonic()
        self._begun_at = 0

    def begin(self, info: RunInfo) -> None:
        self.tracker.start(info)
        self._begun, self._begun_at = time.monotonic(), self.made

    def compiled(self, program: str, seconds: float) -> None:
        self.log.append("compile", program=program, seconds=seconds)

    def measured_against(self) -> None:
        """The devices of this process, and the peak that their utilisation is measured against."""
        self.log.append("hardware", **self.meter.event())
        if text := str(self.meter):
            self.tracker.note(text)

    def planned(self, index: int, plan: Plan) -> None:
        """The plan is on disk when this returns: it is logged before it is acted on."""
        rows = [dataclasses.asdict(row) for row in plan.assignments]
        self.log.append("plan", index=index, assignments=rows, paused=list(plan.paused), fsync=True)
        self._exploits = tuple(
            Exploit(row.trial, row.parent.trial, self._changes(row.parent.trial, row.point))
            for row in plan.assignments
            if row.parent is not None and row.parent.trial not in (row.trial, *self._sources)
        )
        born = [birth(row, self.points, self.steps, self.origin) for row in self._newcomers(plan)]
        if born:
            self.log.append("births", index=index, trials=born)
        self.points |= {row.trial: row.point for row in plan.assignments}

    @property
    def _sources(self) -> range:
        """The trials that a fork took from another run."""
        return range(0 if self.origin is None else len(self.origin.sources))

    def _newcomers(self, plan: Plan) -> list[Assignment]:
        return [row for row in plan.assignments if row.trial not in self.points]

    def remember(self, plan: Plan, report: Report) -> None:
        """A plan that an earlier process carried out, and what came of it."""
        self.points |= {row.trial: row.point for row in plan.assignments}
        self._note(plan, report)
        self.made += sum(row.steps for row in plan.assignments)
        self.rows += rows_of(plan, report)

    def infeasible(self, index: int, trial: int, reason: str) -> None:
        """A trial that no model can be made for."""
        self.log.append("infeasible", index=index, trial=trial, reason=reason)
        self.tracker.note(f"trial {trial} is infeasible: {reason}")

    def keep(self, index: int, best: Result, params: Any) -> None:
        """The best trial's parameters on disk, before another trial takes its place."""
        content = as_safetensors(params)
        self.run.write_bytes(BEST, content)
        digest = hashlib.sha256(content).hexdigest()
        self.log.append(
            "best", index=index, trial=best.trial, step=best.step, digest=digest, fsync=True
        )

    def older(self, groups: Groups, trial: int, step: int) -> Any:
        """A member from a checkpoint of this run. Raises UsageError naming the steps there are."""
        self.store.wait()
        return member_at(self.store, groups, trial, step)

    def reported(
        self,
        index: int,
        plan: Plan,
        report: Report,
        curves: Mapping[int, Mapping[str, np.ndarray]],
        seconds: float,
        spent: Spent,
    ) -> None:
        """The report is on disk when this returns; the trackers have been told."""
        self.made += sum(row.steps for row in plan.assignments)
        longest = max((row.steps + row.probe for row in plan.assignments), default=0)
        speed = self.meter.segment(seconds, longest, spent.tokens, spent.flops)
        self._note(plan, report)
        dense = {trial: every_step(curve) for trial, curve in curves.items()}
        rare = {str(trial): diagnosed(curve) for trial, curve in curves.items()}
        self.log.append(
            "report",
            index=index,
            results=[_logged(result) for result in report],
            curves={str(trial): thinned(curve) for trial, curve in dense.items()},
            diagnostics={trial: curve for trial, curve in rare.items() if curve["step"]},
            seconds=seconds,
            tokens=spent.tokens,
            probe_tokens=spent.probe_tokens,
            idle_steps=spent.idle_steps,
            **dataclasses.asdict(speed),
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
                points={trial: self.points[trial] for trial in groups},
                curves=dense,
                tokens_per_second=known(speed.tokens_per_second),
                step_seconds=known(speed.step_seconds),
                mfu=known(speed.mfu),
                goodput=known(speed.goodput),
                memory_bytes=known(speed.device_bytes or speed.host_bytes),
                seconds_left=self._seconds_left(),
                first_row=self.rows,
                trials=len(self.points),
                share=self.made / self.member_steps,
            )
        )
        self.rows += rows_of(plan, report)

    def _note(self, plan: Plan, report: Report) -> None:
        searched = {row.trial for row in plan.assignments if row.group != "fixed"}
        losses = [r.loss for r in report if r.trial in searched and math.isfinite(r.loss)]
        self.loss = min(losses, default=None)
        self.steps |= {result.trial: result.step for result in report}

    def due(self) -> bool:
        """Whether it is time to save, and no save is being written."""
        return time.monotonic() - self._saved >= self.save_seconds and not self.store.busy

    def save(
        self,
        index: int,
        state: Any,
        metadata: Mapping[str, Any],
        last: Any,
        due: bool | None = None,
    ) -> None:
        """Saves in the background when one is due, and always at a step that is kept for good; on
        the way out (`last`) waits for the commit.

        A save that fails leaves what was committed before; the run goes on and says so, except on
        the way out, where CheckpointError is raised. Of several processes one says what is `due`.
        """
        due = self.due() if due is None else due
        step = next((step for step in self.always if step in reached(metadata)), None)
        if not (last or step is not None or due):
            return
        about = {**metadata, LOSS: self.loss, KEEP: self.always.get(step) if step else None}
        try:
            if last:
                self.store.wait()
            self.log.append("saving", index=index, fsync=True)
            self.store.save(index, state, about, wait=bool(last) or step is not None)
            if step is not None:
                del self.always[step]
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

    def _seconds_left(self) -> float:
        made = self.made - self._begun_at
        elapsed = time.monotonic() - self._begun
        return elapsed / made * (self.member_steps - self.made) if made > 0 else float("nan")


def _logged(result: Result) -> dict[str, Any]:
    row = dataclasses.asdict(result)
    return row if row["metrics"] else {n: value for n, value in row.items() if n != "metrics"}


def rows_of(plan: Plan, report: Report) -> int:
    """Different steps that the rows of a segment have made, and one for its report."""
    made = ((r.step - row.steps, r.step) for row, r in zip(plan.assignments, report, strict=True))
    return len({step for begin, end in set(made) for step in range(begin, end)}) + 1


def reached(metadata: Mapping[str, Any]) -> set[int]:
    """The steps that the trials of a checkpoint have reached."""
    return {
        step
        for _, trials, steps in populations(metadata)
        for trial, step in zip(trials, steps, strict=True)
        if trial is not None
    }
