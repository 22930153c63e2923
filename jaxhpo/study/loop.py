"""The loop that joins a scheduler, the engine, the data and the record."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np

from jaxhpo.errors import Diverged, Interrupted
from jaxhpo.population.engine import Engine
from jaxhpo.population.member import Member
from jaxhpo.population.rows import Rows
from jaxhpo.search.plan import Plan, Point, Report, Result, Scheduler
from jaxhpo.study.places import Places


@dataclass
class Study:
    """One search in progress. Everything it remembers is in the log, or a function of it.

    `lower` turns points into rows of hyperparameters; `batch_at(step, steps)` gives the training
    batches [S, B, ...] from a step on; `held_out` is [E, B, ...]. `segment` and `probe` are the
    compiled maxima of steps.
    """

    engine: Engine
    scheduler: Scheduler
    lower: Callable[[Sequence[Point]], Any]
    batch_at: Callable[[int, int], Any]
    held_out: Any
    segment: int
    probe: int
    recorder: Any
    index: int = 0
    places: Places = field(default_factory=Places)
    population: Member | None = None
    staged: dict[tuple[int, ...], Any] = field(default_factory=dict)

    def run(self, plan: Plan | None, stop_requested: Callable[[], str | None]) -> None:
        """Carries out plans until there is none.

        Raises Interrupted after saving when asked to stop, Diverged when no member is finite.
        """
        while plan is not None:
            report = self.step(plan)
            try:
                plan = self.scheduler.next(report)
            except Diverged:
                self.recorder.stopped("diverged", self.index)
                raise
            reason = stop_requested()
            self.recorder.save(
                self.index, self.population, self.places, last=plan is None or reason
            )
            if reason and plan is not None:
                self.recorder.stopped(reason, self.index)
                raise Interrupted(f"jaxhpo resume {self.recorder.store.root.parent}")
            self.index += 1

    def step(self, plan: Plan) -> Report:
        """One segment: the plan goes to the log, to the device, and comes back as a report."""
        self.recorder.planned(self.index, plan)
        begin = time.perf_counter()
        host_rows, streams = self.places.rows(plan, self.lower)
        rows = self.engine.place(host_rows)
        if self.population is None:
            self.population = self.engine.empty(host_rows)
        if self.places.moves(plan):
            self.population = self.engine.assemble(self.population, rows)
        batches = self.batches(streams, self.segment)
        self.population, metrics = self.engine.train(self.population, rows, batches)
        starts, self.places = self.places.starts(plan), self.places.after(plan)
        losses = self.select(plan, host_rows, rows)
        self.stage_ahead()
        metrics, (raw, scores) = jax.device_get((metrics, losses))
        seconds = time.perf_counter() - begin
        report = results(plan, self.places, raw, scores)
        self.recorder.reported(self.index, plan, report, curves(plan, starts, metrics), seconds)
        return report

    def select(self, plan: Plan, host_rows: Rows, rows: Rows) -> tuple[jax.Array, jax.Array]:
        """Raw losses and the losses that rank, f32[P, E], on the device."""
        if not any(row.probe for row in plan.assignments):
            raw = self.engine.evaluate(self.population, rows, self.held_out)
            return raw, raw
        streams = sorted(set(self.places.steps))
        mine = np.array([streams.index(step) for step in self.places.steps], np.int32)
        if not np.array_equal(mine, host_rows.streams):
            rows = self.engine.place(replace(host_rows, streams=mine))
        batches = self.batches(streams, self.probe)
        return self.engine.probe(self.population, rows, batches, self.held_out)

    def batches(self, streams: Sequence[int], steps: int) -> Any:
        """The batches [U, steps, B, ...] that start at each of `streams`, on the device.

        U is rounded up to a power of two, so that few data layouts are ever compiled.
        """
        key = (*streams, steps)
        if key not in self.staged:
            spare = (1 << (len(streams) - 1).bit_length()) - len(streams)
            parts = [self.batch_at(start, steps) for start in [*streams, *[streams[0]] * spare]]
            stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *parts)
            self.staged[key] = self.engine.stage(stacked)
        return self.staged[key]

    def stage_ahead(self) -> None:
        """Fetches the next segment's batches while the device is busy with this one."""
        streams = sorted(set(self.places.steps))
        key = (*streams, self.segment)
        self.batches(streams, self.segment)
        self.staged = {key: self.staged[key]}


def results(plan: Plan, places: Places, raw: np.ndarray, scores: np.ndarray) -> Report:
    """A report from losses f32[P, E]: means in float64 of the device's numbers."""
    return tuple(
        Result(
            trial=row.trial,
            step=step,
            loss=float(np.mean(loss, dtype=np.float64)),
            score=float(np.mean(score, dtype=np.float64)),
            samples=tuple(score.tolist()),
        )
        for row, step, loss, score in zip(plan.assignments, places.steps, raw, scores, strict=False)
    )


def curves(
    plan: Plan, starts: Sequence[int], metrics: dict[str, np.ndarray]
) -> dict[int, dict[str, np.ndarray]]:
    """Per trial, the steps made in this segment and what was measured of them."""
    return {
        row.trial: {
            "step": np.arange(start, start + row.steps),
            **{name: values[place, : row.steps] for name, values in metrics.items()},
        }
        for place, (row, start) in enumerate(zip(plan.assignments, starts, strict=True))
    }
