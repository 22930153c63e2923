"""One compile group: the trials that one set of programs can hold."""

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxhpo.population.engine import Engine
from jaxhpo.population.member import Member
from jaxhpo.population.mesh import by_batch
from jaxhpo.population.rows import PARTS, Rows, make_rows
from jaxhpo.population.transfer import fetch_row
from jaxhpo.search.plan import Plan, Point, Value
from jaxhpo.study.placement import Shape
from jaxhpo.study.places import Places
from jaxhpo.study.streams import layout_of, lengths_of, longest, padded

Statics = tuple[tuple[str, Value], ...]
"""Names and values of a point that decide what is compiled."""

FetchOlder = Callable[[int, int], Any]
"""Trial and step to a host copy of that member. Raises UsageError naming the steps there are."""


@dataclass
class Trained:
    """What a group's segment left on the device: metrics f32[P, S], losses f32[P, E]."""

    metrics: dict[str, Any]
    raw: Any
    scores: Any


class Probing(NamedTuple):
    """The stream of batches of each place, i32[P], and the batches of the probes."""

    streams: np.ndarray
    batches: Any


@dataclass(frozen=True)
class Job:
    """A program to compile: its name for people, and what the engine is asked for."""

    name: str
    engine: Engine
    kind: str
    arguments: tuple[Any, ...]

    def compile(self) -> tuple[str, float]:
        """The name, and the seconds that it took."""
        begin = time.perf_counter()
        self.engine.program(self.kind, *self.arguments)
        return self.name, time.perf_counter() - begin


@dataclass
class CompileGroup:
    """The population of one compile group, on engines of one or several sizes, largest first.

    `lower` turns points into rows of hyperparameters; `batch_at(step, steps)` gives the training
    batches [S, B, ...] from a step on; `held_out` is [E, B, ...]. `segment` and `probe` are the
    compiled maxima of steps, `streams` that of different steps at which rows start.
    """

    engines: Sequence[Engine]
    lower: Callable[[Sequence[Point]], Any]
    batch_at: Callable[[int, int], Any]
    held_out: Any
    segment: int
    probe: int
    streams: int = 1
    tokens_per_step: int = 0
    flops_per_step: float = 0.0
    """operations of one training step of one member; 0 where they are not known"""
    statics: Statics = ()
    example: Point | None = None
    places: Places = field(default_factory=Places)
    population: Member | None = None
    staged: dict[Any, Any] = field(default_factory=dict)

    # what a plan means here

    def engine_for(self, held: int) -> Engine:
        """The smallest engine with a place for each of so many trials."""
        fitting = [engine for engine in self.engines if engine.size >= held]
        if not fitting:
            raise ValueError(f"{held} trials do not fit {self.engines[0].size} places")
        return fitting[-1]

    def after(self, plan: Plan) -> Places:
        """Who lives where, and at which step, once the plan's segment is trained."""
        if not plan.assignments:
            return self.places.after(plan) if plan.paused else Places()
        return self.places.after(plan, self.shape(len(plan.assignments) + len(plan.paused)))

    def shape(self, held: int) -> Shape:
        """The places that there are for so many trials."""
        return shape_of(self.engine_for(held))

    def lane_steps(self, plan: Plan, after: Places) -> int:
        """Training steps that the device makes for a plan, those of idle lanes included."""
        steps = {row.trial: row.steps for row in plan.assignments}
        work = [0 if trial is None else steps.get(trial, 0) for trial in after.trials]
        return self.shape(len(after.trials)).lane_steps(work)

    # the device

    def run(self, plan: Plan, older: FetchOlder) -> Trained:
        """Places, trains and measures the rows of a plan; nothing waits on the device."""
        if self.example is None:
            self.example = plan.assignments[0].point
        after = self.after(plan)
        engine = self.engine_for(len(after.trials))
        lengths = lengths_of(plan, self.places.starts(plan))
        host_rows = self._rows(plan, after)
        rows = engine.place(host_rows)
        self._assemble(engine, plan, after, host_rows, rows, older)
        batches = self.batches(lengths, self.segment)
        self.population, metrics = engine.train(self.population, rows, batches)
        self.places = after
        probing = self.probing(plan)
        raw, scores = self.measured(engine, self.population, host_rows, rows, probing)
        self.stage_ahead(plan)
        return Trained(metrics, raw, scores)

    def host_rows(self, plan: Plan) -> Rows:
        """The rows that `run` will place for a plan."""
        return self._rows(plan, self.after(plan))

    def _rows(self, plan: Plan, after: Places) -> Rows:
        lengths = lengths_of(plan, self.places.starts(plan))
        return self.places.rows(plan, after, list(lengths), self.lower)

    def rest(self, plan: Plan) -> None:
        """Lets go of trials that a plan without rows for this group no longer holds."""
        self.places = self.after(plan)
        if not self.places.trials:
            self.population, self.staged = None, {}

    def _assemble(
        self,
        engine: Engine,
        plan: Plan,
        after: Places,
        host_rows: Rows,
        rows: Rows,
        older: FetchOlder,
    ) -> None:
        if self.population is None:
            self.population = engine.empty(host_rows)
        if self.places.moves(plan, after):
            self.population = engine.assemble(self.population, rows)
        for trial, row in self.places.restored(plan).items():
            if row.parent is None or row.parent.step is None:
                continue
            member = older(row.parent.trial, row.parent.step)
            kept = {part: getattr(member, part) for part in PARTS if part in row.keep}
            self.population = engine.insert(self.population, after.trials.index(trial), kept)

    def probing(self, plan: Plan) -> Probing | None:
        """What the probes of a plan run on, once its rows are trained; None where it has none."""
        probes = {row.trial: row.probe for row in plan.assignments if row.probe}
        if not probes:
            return None
        lengths = longest((self.places.step_of(trial), n) for trial, n in probes.items())
        starts = list(lengths)
        mine = [
            starts.index(step) if trial in probes else 0
            for trial, step in zip(self.places.trials, self.places.steps, strict=True)
        ]
        return Probing(np.array(mine, np.int32), self.batches(lengths, self.probe))

    def measured(
        self,
        engine: Engine,
        population: Any,
        host_rows: Rows,
        rows: Rows,
        probing: Probing | None,
    ) -> tuple[Any, Any]:
        """Raw losses and the losses that rank, f32[P, E], on the device."""
        if probing is None:
            raw = engine.evaluate(population, rows, self.held_out)
            return raw, raw
        if not np.array_equal(probing.streams, host_rows.streams):
            rows = engine.place(replace(host_rows, streams=probing.streams))
        return engine.probe(population, rows, probing.batches, self.held_out)

    def batches(self, lengths: Mapping[int, int], steps: int) -> Any:
        """Batches [U, steps, B, ...] on the device: streams by the step they start at.

        A single stream is whole. Of several, each has its length; the rest is zeros, which no row
        trains on: U is the most that the search ever needs, so that one layout is compiled.
        """
        layout = layout_of(max(self.streams, len(lengths)))
        if layout == 1:
            lengths = dict.fromkeys(lengths, steps)
        key = (*lengths.items(), steps)
        if key not in self.staged:
            parts = [self.batch_at(start, length) for start, length in lengths.items()]
            stack = lambda *leaves: padded(leaves, layout, steps)
            self.staged[key] = self.engines[0].stage(jax.tree.map(stack, *parts))
        return self.staged[key]

    def stage_ahead(self, plan: Plan) -> None:
        """Fetches the next segment's batches while the device is busy, where they are known."""
        starts = {self.places.step_of(row.trial) for row in plan.assignments}
        self.staged, kept = {}, self.staged
        if self.streams == 1 and len(starts) == 1:
            key = (*dict.fromkeys(starts, self.segment).items(), self.segment)
            self.staged = {key: kept[key]} if key in kept else {}
            self.batches(dict.fromkeys(starts, self.segment), self.segment)

    # one member, and all of them

    def params_of(self, trial: int) -> Any:
        """One trial's parameters as host arrays."""
        if self.population is None:
            raise LookupError(f"trial {trial} is not held")
        place = self.places.trials.index(trial)
        return fetch_row(self.population.params, place)

    def abstract(self, size: int) -> Member:
        """Shapes and shardings of a population of so many places, for restoring."""
        return self.engine_for(size).abstract(self.rows_like())

    def rows_like(self) -> Rows:
        """One row as the programs take it; its values mean nothing."""
        return make_rows(self.lower([self.example or {}]), seeds=[0], steps=[0])

    def jobs(self) -> Iterator[Job]:
        """Every program that the group needs, at each size."""
        one, layout = self.batch_at(0, 1), layout_of(self.streams)
        stream = lambda steps: jax.tree.map(
            lambda x: _abstract(self.engines[0], (layout, steps, *x.shape[1:]), x), one
        )
        held_out = jax.tree.map(lambda x: _abstract(self.engines[0], x.shape, x, 1), self.held_out)
        above: Engine | None = None
        for engine in self.engines:
            rows = engine.place(self.rows_like())
            population, seed = engine.abstract(rows), engine.run_seed
            named = functools.partial(self._job, engine)
            yield named("assemble", population, rows, seed)
            if above is not None:
                smaller = f"assemble from {above.size}"
                yield named(smaller, above.abstract(rows), rows, seed)
            yield named("train", population, rows, seed, stream(self.segment))
            yield named("evaluate", population, rows, held_out)
            if self.probe:
                yield named("probe", population, rows, seed, stream(self.probe), held_out)
            above = engine

    def _job(self, engine: Engine, name: str, *arguments: Any) -> Job:
        size = f"{engine.size} places" if len(self.engines) > 1 else ""
        named = " ".join(part for part in (name, size, label(self.statics)) if part)
        return Job(named, engine, name.split()[0], arguments)


def program_names(group: CompileGroup) -> tuple[str, ...]:
    """The programs that a group compiles."""
    return tuple(job.name for job in group.jobs())


def statics_of(point: Point, static: Sequence[str]) -> Statics:
    """The part of a point that decides what is compiled."""
    return tuple((name, point[name]) for name in static if name in point)


def label(statics: Statics) -> str:
    """The name of a group: `model.num_layers=2 model.d_model=64`."""
    return " ".join(f"{name}={value}" for name, value in statics)


def shape_of(engine: Engine) -> Shape:
    return Shape(engine.size, engine.shards, engine.chunk)


def _abstract(
    engine: Engine, shape: tuple[int, ...], like: Any, axis: int = 2
) -> jax.ShapeDtypeStruct:
    dtype = jax.dtypes.canonicalize_dtype(like.dtype)
    return jax.ShapeDtypeStruct(shape, dtype, sharding=by_batch(engine.mesh, axis))
