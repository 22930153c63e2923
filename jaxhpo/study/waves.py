"""A population too big for the devices: trained in waves, the others' state waits on the host."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from jaxhpo.population.engine import Engine
from jaxhpo.population.member import Member
from jaxhpo.population.rows import PARTS, Rows
from jaxhpo.search.plan import Plan
from jaxhpo.study.compile_group import (
    CompileGroup,
    FetchOlder,
    Probing,
    Trained,
    shape_of,
)
from jaxhpo.study.placement import Shape
from jaxhpo.study.places import Places
from jaxhpo.study.streams import lengths_of

Parts = Mapping[int, Mapping[str, Any]]
"""Place -> parts of a member, as host arrays, that it takes over from an older one."""


@dataclass
class WavedGroup(CompileGroup):
    """A compile group whose `population` is host arrays [waves x P], one engine's size at a time
    on the devices.

    Schedulers see one population: a plan's rows are trained wave by wave and come back as one
    report. A copy is a gather on the host, so that parents may be of another wave. While a segment
    is trained, the host holds the population twice.
    """

    waves: int = 1

    def engine_for(self, held: int) -> Engine:
        engine = self.engines[0]
        if held > self.waves * engine.size:
            raise ValueError(f"{held} trials do not fit {self.waves} waves of {engine.size} places")
        return engine

    def shape(self, held: int) -> Shape:
        one = shape_of(self.engine_for(held))
        return Shape(self.waves * one.size, self.waves * one.shards, one.chunk)

    def abstract(self, size: int) -> Member:
        """Shapes of the whole population, on the host."""
        del size
        host = jax.sharding.SingleDeviceSharding(jax.local_devices(backend="cpu")[0])
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(
                (self.waves * x.shape[0], *x.shape[1:]), x.dtype, sharding=host
            ),
            self.engines[0].abstract(self.rows_like()),
        )

    def params_of(self, trial: int) -> Any:
        if self.population is None:
            raise LookupError(f"trial {trial} is not held")
        place = self.places.trials.index(trial)
        return jax.tree.map(lambda leaf: np.array(leaf[place]), self.population.params)

    def run(self, plan: Plan, older: FetchOlder) -> Trained:
        """As for a population that fits, but what comes back are host arrays."""
        if self.example is None:
            self.example = plan.assignments[0].point
        after = self.after(plan)
        lengths = lengths_of(plan, self.places.starts(plan))
        rows = self.places.rows(plan, after, list(lengths), self.lower)
        moves, taken = self.places.moves(plan, after), self._taken(plan, after, older)
        old = self._held()
        self.population = jax.tree.map(
            lambda x: np.empty((len(rows.seeds), *x.shape[1:]), x.dtype), old
        )
        self.places = after
        probing = self.probing(plan)
        found: list[Trained | None] = []
        size = self.engines[0].size
        for at in range(0, len(rows.seeds), size):
            part = slice(at, at + size)
            mine = jax.tree.map(lambda x, part=part: x[part], rows)
            kept = {
                place - at: parts for place, parts in taken.items() if place in range(at, at + size)
            }
            held = jax.tree.map(lambda x, at=mine.parents: x[at], old)
            if mine.steps.any() or mine.newborn.any() or kept:
                own = None if probing is None else probing._replace(streams=probing.streams[part])
                batches = self.batches(lengths, self.segment)
                held, trained = self._wave(held, mine, moves, kept, batches, own)
            else:
                trained = None  # nobody of this wave trains
            found.append(trained)
            for whole, new in zip(*map(jax.tree.leaves, (self.population, held)), strict=True):
                whole[part] = new
        self.stage_ahead(plan)
        return joined(found)

    def _wave(
        self,
        held: Member,
        rows: Rows,
        moves: bool,
        kept: Parts,
        batches: Any,
        probing: Probing | None,
    ) -> tuple[Member, Trained]:
        """One wave onto the devices and back; `held` are host arrays, copied from parents."""
        engine = self.engines[0]
        rows = replace(rows, parents=np.arange(engine.size, dtype=np.int32))
        placed = engine.place(rows)
        population = jax.device_put(held, jax.tree.map(lambda x: x.sharding, engine.abstract(rows)))
        if moves:
            population = engine.assemble(population, placed)
        for place, parts in kept.items():
            population = engine.insert(population, place, parts)
        population, metrics = engine.train(population, placed, batches)
        raw, scores = self.measured(engine, population, rows, placed, probing)
        population, *numbers = jax.device_get((population, metrics, raw, scores))
        return population, Trained(*numbers)

    def _held(self) -> Member:
        """The population before a segment, as host arrays."""
        if self.population is not None:
            return jax.tree.map(np.asarray, self.population)
        return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), self.abstract(0))

    def _taken(self, plan: Plan, after: Places, older: FetchOlder) -> Parts:
        found = {}
        for trial, row in self.places.restored(plan).items():
            if row.parent is not None and row.parent.step is not None:
                member = older(row.parent.trial, row.parent.step)
                kept = {part: getattr(member, part) for part in PARTS if part in row.keep}
                found[after.trials.index(trial)] = kept
        return found


def joined(found: Sequence[Trained | None]) -> Trained:
    """What the waves left, as one population's; a wave in which nobody trained has NaN."""
    like = next(each for each in found if each is not None)
    nothing = jax.tree.map(lambda x: np.full_like(x, np.nan), _numbers(like))
    parts = [nothing if each is None else _numbers(each) for each in found]
    return Trained(*jax.tree.map(lambda *rows: np.concatenate(rows), *parts))


def _numbers(trained: Trained) -> tuple[Any, Any, Any]:
    return trained.metrics, trained.raw, trained.scores
