"""Compile groups made from a config and the static values of a point."""

import dataclasses
import functools
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax

from jaxhpo.config import replace, searchable_names
from jaxhpo.config.finetune import FinetuneRun
from jaxhpo.config.run import PbtRun, Run
from jaxhpo.data.corpus import open_corpus
from jaxhpo.errors import UsageError
from jaxhpo.population import hyperparams, memory
from jaxhpo.population.engine import Engine
from jaxhpo.population.mesh import axes_of
from jaxhpo.population.sharding import check_mesh
from jaxhpo.population.work import flops_per_step
from jaxhpo.search.plan import Extent, Point, Scheduler
from jaxhpo.study.compile_group import CompileGroup, Statics, label, shape_of, statics_of
from jaxhpo.study.shards import batches_of
from jaxhpo.study.sizes import Round, rehearse, worth_compiling
from jaxhpo.study.streams import layout_of
from jaxhpo.study.tuning import Tuning, task_of
from jaxhpo.study.waves import WavedGroup

_WORDS: dict[Any, Any] = {"true": True, "false": False}


@dataclass
class Opening:
    """Makes the compile groups of a run, and knows what each will hold and need.

    `searched` are the names of the space: they decide which features are compiled in. `foreseen`
    are the points of all trials, where they are known: a group has no more places than trials.
    """

    config: Run
    corpus: Any
    mesh: Any
    searched: Collection[str]
    static: Sequence[str]
    extent: Extent
    foreseen: Sequence[Point] | None
    rehearsal: Callable[[], Scheduler]
    configs: dict[Statics, Run] = field(default_factory=dict)
    needs: dict[Statics, memory.MemoryPlan] = field(default_factory=dict)
    tuning: Tuning | None = None

    def __call__(self, statics: Statics) -> CompileGroup:
        """Raises UsageError where model or data refuse the values, or they do not fit.

        Members that do not fit at once are trained in waves.
        """
        config = self.config_of(statics)
        corpus, held = self.corpus_of(config), self.held(statics)
        engines, streams = self.engines(config, held), min(self.extent.starts, held)
        need, make = self.need(config, engines[0], streams), CompileGroup
        wave = self.wave(config, held, engines[0], streams)
        if wave is not None:
            if jax.process_count() > 1:
                raise UsageError(
                    f"{held} members do not fit on the devices at once, and populations of several "
                    "processes are not trained in waves; allowed: fewer members, more devices, or "
                    "one process"
                )
            engines, need = (wave,), self.need(config, wave, streams)
            make = functools.partial(WavedGroup, waves=-(-held // wave.size))
        self.check_fits(config, engines[0], self.whole(need))
        self.needs[statics], self.configs[statics] = need, config
        return make(
            engines=engines,
            lower=self.lower(statics),
            batch_at=batches_of(corpus.train, self.mesh),
            held_out=engines[0].stage(corpus.held_out, axis=1),
            segment=self.extent.steps,
            probe=self.extent.probe,
            streams=streams,
            tokens_per_step=config.tokens_per_step,
            flops_per_step=flops_per_step(config),
            statics=statics,
        )

    # what is made

    def config_of(self, statics: Statics) -> Run:
        """The run's config with a group's static values. Raises UsageError where they can't be."""
        config = self.config
        try:
            for section in dict.fromkeys(name.partition(".")[0] for name, _ in statics):
                own = [(name, value) for name, value in statics if name.startswith(f"{section}.")]
                table = {name.partition(".")[2]: _WORDS.get(value, value) for name, value in own}
                config = replace(config, section, table)
        except UsageError as error:
            raise UsageError(f"space: {label(statics)}: {error}") from None
        known = searchable_names(config)
        for name in self.searched:
            if name not in known:
                raise UsageError(f"space: {name} is no name where {label(statics)}")
        try:
            accumulate = config.execution.accumulate
            check_mesh(config.model, config.data.batch_size, accumulate, axes_of(self.mesh))
        except UsageError as error:
            raise UsageError(f"space: {error}" if statics else str(error)) from None
        return config

    def corpus_of(self, config: Run) -> Any:
        """The corpus in windows of a group; all groups of one context share the held-out ones."""
        model, data = config.model, config.data
        self.corpus.check(model.vocab_size)
        if model.context != self.config.model.context:
            base = dataclasses.replace(data, batch_size=self.config.data.batch_size)
            corpus = open_corpus(base, model.context, config.seed)
        else:
            corpus = self.corpus
        if data.batch_size == corpus.train.batch_size:
            return corpus
        train = dataclasses.replace(corpus.train, batch_size=data.batch_size)
        return dataclasses.replace(corpus, train=train)

    def lower(self, statics: Statics) -> Callable[[Sequence[Point]], Any]:
        """Points to rows of hyperparameters, as the group's model has them."""
        config = self.config_of(statics)
        return functools.partial(hyperparams.lower, config, self.searched)

    def held(self, statics: Statics) -> int:
        """The most trials of a group that ever have a place."""
        if self.foreseen is None:
            return self.extent.held
        return max(1, min(self.extent.held, self.trials_of(statics)))

    def trials_of(self, statics: Statics) -> int:
        """How many of the foreseen trials are a group's."""
        return sum(statics_of(point, self.static) == statics for point in self.foreseen or ())

    def maker(self, config: Run) -> Callable[[int], Engine]:
        """Makes engines for so many members."""
        shared = None
        if self.tuning is not None and isinstance(config, FinetuneRun):
            shared = self.tuning.shared(config, self.mesh)
        return functools.partial(
            make_engine, config, self.mesh, shared=shared, rows=self.extent.rows
        )

    def engines(self, config: Run, held: int) -> tuple[Engine, ...]:
        """Engines of the sizes worth compiling, the largest first."""
        make = self.maker(config)
        largest = make(held)
        wanted = config.execution.sizes
        if wanted == 1 or (wanted is None and largest.chunk == 1):
            return (largest,)
        engines = list(_halved(largest, make))
        if wanted is not None:
            return tuple(engines[:wanted])
        if self.foreseen is None:
            return (largest,)
        shapes = [shape_of(engine) for engine in engines]
        flops = flops_per_step(config)
        kept = worth_compiling(self.rounds, shapes, flops, jax.default_backend())
        return tuple(engine for engine in engines if shape_of(engine) in kept)

    def wave(self, config: Run, held: int, engine: Engine, streams: int) -> Engine | None:
        """The engine of one of as few waves as fit, where so many members do not fit at once.

        None where they do, or would in smaller chunks; where not even a wave of the fewest members
        fits; where the others' state has no room on the host (twice, and on a CPU there is no other
        memory unless `execution.memory_gib` says so), or would be spread over several hosts.
        """
        need = self.need(config, engine, streams)
        alone = dataclasses.replace(need, working=need.working // engine.chunk)
        waiting = 2 * held * need.state * engine.shards * engine.placement.axes.inner // engine.size
        no_room = waiting > memory.available_memory()
        on_cpu = jax.default_backend() == "cpu" and config.execution.memory_gib is None
        if self.whole(alone).fits or on_cpu or no_room or jax.process_count() > 1:
            return None
        for count in range(2, held + 1):
            smaller = self.maker(config)(-(-held // count))
            if smaller.size < engine.size:
                engine = smaller
                if self.whole(self.need(config, engine, streams)).fits:
                    return engine
        return None

    @functools.cached_property
    def rounds(self) -> tuple[Round, ...]:
        """What the scheduler would plan for made-up losses."""
        return rehearse(self.rehearsal())

    # what it takes

    def whole(self, need: memory.MemoryPlan) -> memory.MemoryPlan:
        """Memory with a group beside those opened so far."""
        return total([*self.needs.values(), need])

    def need(self, config: Run, engine: Engine, streams: int) -> memory.MemoryPlan:
        """Memory of one group's population on a device."""
        rows = engine.size // engine.shards
        extent, layout = self.extent, layout_of(streams)
        return memory.memory_plan(
            config,
            rows,
            engine.chunk,
            extent.steps,
            extent.probe,
            layout,
            axes=engine.placement.axes,
        )

    def check_fits(self, config: Run, engine: Engine, need: memory.MemoryPlan) -> None:
        """Raises UsageError where a group does not fit beside those opened so far."""
        fewer = memory.PBT_MEMBERS if isinstance(config, PbtRun) else "(search.places)"
        rows = engine.size // engine.shards
        memory.check_fits(need, config, rows, engine.chunk, fewer)


def make_engine(
    config: Run, mesh: Any, members: int, shared: Any = None, rows: int | None = None
) -> Engine:
    """An engine for a config's model, with the defaults for the kind of device.

    At most `rows` of the members train at once (None: all): a chunk of more would be lanes that
    wait.
    """
    execution = config.execution
    shards, axes = mesh.shape["member"], axes_of(mesh)
    chunk = execution.chunk
    if chunk is None:
        chunk = memory.default_chunk(config, -(-members // shards), axes)
        chunk = min(chunk, -(-(rows or members) // shards))
    return Engine(
        task_of(config),
        mesh,
        members,
        run_seed=config.seed,
        chunk=chunk,
        accumulate=execution.accumulate,
        shared=shared,
    )


def total(needs: Iterable[memory.MemoryPlan]) -> memory.MemoryPlan:
    """Memory of several populations of which one trains at a time, over one base."""
    plans = list(needs)
    return memory.MemoryPlan(
        state=sum(plan.state for plan in plans),
        working=max(plan.working for plan in plans),
        data=sum(plan.data for plan in plans),
        limit=plans[0].limit,
        shared=max(plan.shared for plan in plans),
    )


def _halved(largest: Engine, make: Callable[[int], Engine]) -> Iterable[Engine]:
    """The engine and its halves, as long as they get smaller."""
    engine = largest
    while True:
        yield engine
        smaller = make(-(-engine.size // 2))
        if smaller.size >= engine.size:
            return
        engine = smaller
