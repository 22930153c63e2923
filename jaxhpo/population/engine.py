"""One engine trains, evaluates, probes, copies and restores the members of every search."""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import PartitionSpec

from jaxhpo.nn.constraints import constraining
from jaxhpo.population import member as life
from jaxhpo.population import mesh as meshes
from jaxhpo.population import programs, transfer
from jaxhpo.population.member import Member
from jaxhpo.population.placing import Placement
from jaxhpo.population.rows import Rows, padded
from jaxhpo.population.task import Task

ROWS, WHOLE = PartitionSpec(meshes.MEMBER), PartitionSpec()


class Engine:
    """The compiled programs of one task and one population size.

    Nothing that a search changes recompiles: hyperparameters, seeds, step counts and parents are
    arguments. Programs are built once per kind and data layout, ahead of their first call; `built`
    lists their names with the seconds each took. Rows come in as numpy arrays and are padded to a
    multiple of shards x chunk, with two rows a shard at least: a loop of one is another program.

    `shared` is what all members have in common, such as a frozen base model: a pytree of arrays
    that every shard of members has once, is an argument of every program, unbatched and never
    donated, and that `task.over(shared)` sees inside. The devices that share a member hold its
    arrays, and those, by the rules of `sharding`.
    """

    def __init__(
        self,
        task: Task,
        mesh: jax.sharding.Mesh,
        members: int,
        run_seed: int = 0,
        chunk: int = 1,
        accumulate: int = 1,
        shared: Any = None,
    ) -> None:
        self.task, self.mesh, self.members, self.accumulate = task, mesh, members, accumulate
        self.shards = mesh.shape[meshes.MEMBER]
        rows = max(2, -(-members // self.shards))
        self.chunk = min(chunk, rows)
        self.size = self.shards * (-(-rows // self.chunk) * self.chunk)
        self.built: list[tuple[str, float]] = []
        self._programs: dict[Any, Callable] = {}
        self.run_seed = transfer.put(np.uint32(run_seed), meshes.everywhere(mesh))
        self.placement = Placement(mesh)
        self.shared = ()
        if shared is not None:
            self.shared = (transfer.put(shared, self.placement.shared(shared)),)

    # state

    def abstract(self, rows: Rows) -> Member:
        """Shapes, dtypes and shardings of a population, for restoring and for planning."""
        row = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), rows)
        one = jax.eval_shape(
            lambda row, *shared: life.newborn(
                over(self.task, shared), row.hyperparams, np.uint32(0), row.seeds
            ),
            row,
            *self.shared,
        )
        shape = lambda x: jax.ShapeDtypeStruct((self.size, *x.shape), x.dtype)
        population = jax.tree.map(shape, one)
        return jax.tree.map(
            lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
            population,
            self.placement.population(population),
        )

    def empty(self, rows: Rows) -> Member:
        """A population of zeros, to be filled by `assemble` with newborns."""
        return transfer.zeros(self.abstract(rows))

    # the four programs

    def assemble(self, population: Member, rows: Rows) -> Member:
        """Donates `population`, which may be one of another size: parents are places in it."""
        return self._run("assemble", population, self.place(rows), self.run_seed)

    def train(
        self, population: Member, rows: Rows, batches: Any
    ) -> tuple[Member, dict[str, jax.Array]]:
        """Donates `population`. Batches are [U, S, B, ...] with U streams of S >= steps; metrics
        f32[P, S] are NaN where a row made no step. Returns at once; nothing waits on the device."""
        return self._run("train", population, self.place(rows), self.run_seed, self.stage(batches))

    def evaluate(self, population: Member, rows: Rows, held_out: Any) -> Any:
        """Held-out losses f32[P, E] of batches [E, B, ...], or what the task examines of each."""
        return self._run("evaluate", population, self.place(rows), self.stage(held_out, axis=1))

    def probe(self, population: Member, rows: Rows, batches: Any, held_out: Any) -> tuple[Any, Any]:
        """Raw and cooled losses f32[P, E], or what the task examines; the population is left as it
        is."""
        return self._run(
            "probe",
            population,
            self.place(rows),
            self.run_seed,
            self.stage(batches),
            self.stage(held_out, axis=1),
        )

    def insert(self, population: Member, place: int, parts: Mapping[str, Any]) -> Member:
        """The population with some of PARTS of one member replaced by host arrays.

        By way of the host, so that nothing is compiled for what seldom happens.
        """
        put = lambda leaf, new: transfer.replace_row(leaf, place, new)
        changed = {
            name: jax.tree.map(put, getattr(population, name), part) for name, part in parts.items()
        }
        return dataclasses.replace(population, **changed)

    # placing host arrays

    def place(self, rows: Rows) -> Rows:
        """Padded rows on their shards."""
        if isinstance(rows.seeds, jax.Array):
            return rows
        return transfer.put(padded(rows, self.size), meshes.by_member(self.mesh))

    def stage(self, batches: Any, axis: int = 2) -> Any:
        """Batches on the device, `axis` (the batch) split over the data axis of the mesh."""
        return transfer.put(batches, meshes.by_batch(self.mesh, axis))

    # compiling

    def _run(self, kind: str, *args: Any) -> Any:
        found = self.program(kind, *args)(*args, *self.shared)
        if self.placement.axes.inner > 1 and jax.default_backend() == "cpu":
            # a CPU's threads are few: other work beside devices that wait for one another may take
            # the one that is missing, and nobody goes on (jax-ml/jax issue 25861; seen once)
            jax.block_until_ready(found)
        return found

    def program(self, kind: str, *args: Any) -> Callable:
        """The compiled program for arguments of these shapes (arrays, or abstract ones)."""
        key = (kind, _size(args[0]), *[(x.shape, x.dtype) for x in jax.tree.leaves(args[2:])])
        if key not in self._programs:
            start = time.perf_counter()
            self._programs[key] = self.lower(kind, *args).compile()
            self.built.append((kind, time.perf_counter() - start))
        return self._programs[key]

    def lower(self, kind: str, *args: Any) -> jax.stages.Lowered:
        function, in_specs, out_specs, donate = self._kinds[kind]
        args = *args, *self.shared
        if _size(args[0]) != self.size:
            donate = ()  # no buffer of another size can be used again
        mapped = jax.shard_map(
            function,
            mesh=self.mesh,
            in_specs=(*in_specs, *(WHOLE for _ in self.shared)),
            out_specs=out_specs,
            axis_names={meshes.MEMBER},
            check_vma=False,
        )
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), args
        )
        rows = meshes.by_member(self.mesh)
        places: Any = rows
        if kind in ("train", "assemble"):
            population = self.placement.population(abstract[0])
            places = (population, rows) if kind == "train" else population
        with constraining(self.placement.constrain):
            return jax.jit(mapped, donate_argnums=donate, out_shardings=places).lower(*abstract)

    @functools.cached_property
    def _kinds(self) -> dict[str, tuple[Callable, Any, Any, tuple[int, ...]]]:
        chunk, micro = self.chunk, self.accumulate

        def bind(function: Callable, *fixed: Any) -> Callable:
            count = len(self.shared)

            def program(*args: Any) -> Any:
                own, shared = args[: len(args) - count], args[len(args) - count :]
                return function(over(self.task, shared), *fixed, *own)

            return program

        return {
            "train": (
                bind(programs.train, chunk, micro),
                (ROWS, ROWS, WHOLE, WHOLE),
                ROWS,
                (0,),
            ),
            "evaluate": (bind(programs.evaluate, chunk), (ROWS, ROWS, WHOLE), ROWS, ()),
            "probe": (
                bind(programs.probe, chunk, micro),
                (ROWS, ROWS, WHOLE, WHOLE, WHOLE),
                ROWS,
                (),
            ),
            "assemble": (
                bind(programs.assemble, self.shards),
                (ROWS, ROWS, WHOLE),
                ROWS,
                (0,),
            ),
        }


def over(task: Any, shared: tuple[Any, ...]) -> Any:
    """The task on what all members share, if there is anything."""
    return task.over(*shared) if shared else task


def _size(population: Member) -> int:
    return jax.tree.leaves(population)[0].shape[0]
