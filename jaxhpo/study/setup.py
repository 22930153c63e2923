"""From a config to the parts of a study: corpus, scheduler, engine."""

import dataclasses
import functools
import itertools
import os
import platform
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxhpo.config import is_static, searchable_names
from jaxhpo.config.run import PbtRun, Run, TrainRun
from jaxhpo.data.corpus import open_corpus
from jaxhpo.errors import UsageError
from jaxhpo.population import hyperparams, memory
from jaxhpo.population.engine import Engine
from jaxhpo.population.mesh import by_batch, make_mesh
from jaxhpo.population.task import LanguageModel
from jaxhpo.schedules import in_steps
from jaxhpo.search.distributions import Choice
from jaxhpo.search.fixed import Fixed
from jaxhpo.search.pbt import Pbt
from jaxhpo.search.plan import Extent, Plan, Point, Scheduler
from jaxhpo.search.replay import Replay
from jaxhpo.search.space import Space
from jaxhpo.search.together import Together, beside_fixed
from jaxhpo.study.places import Places

SEGMENT = 100
"""Steps between two reports of a run that selects nothing."""

MOST_CORNERS = 1024
"""Corners of a space that are tried before a run."""


@dataclass(frozen=True)
class Setup:
    """The parts of a study. `extent` has the compiled maxima of steps."""

    config: Run
    corpus: Any
    scheduler: Scheduler
    engine: Engine
    lower: Callable[[Sequence[Point]], Any]
    extent: Extent
    memory: memory.MemoryPlan

    @property
    def tokens_per_step(self) -> int:
        return self.config.tokens_per_step


def prepare(config: Run) -> Setup:
    """Opens the corpus and builds the programs' description; nothing is compiled or written yet.

    Raises UsageError for whatever of the config does not fit the data, the devices or itself.
    """
    corpus = open_corpus(config.data, config.model.context, config.seed)
    config = with_vocabulary(config, corpus)
    space = Space.from_mapping(config.space, is_static, searchable_names(config))
    scheduler = make_scheduler(config, space)
    extent = scheduler.extent
    first = scheduler.first().assignments[0].point
    lower = functools.partial(hyperparams.lower, config, (*space.names, *first))
    check_corners(space, lower)
    engine = make_engine(config)
    rows = engine.size // engine.shards
    needed = memory.memory_plan(config, rows, engine.chunk, extent.steps, extent.probe)
    memory.check_fits(needed, config, rows, engine.chunk)
    return Setup(config, corpus, scheduler, engine, lower, extent, needed)


def with_vocabulary(config: Run, corpus: Any) -> Run:
    """The config with the vocabulary of the tokenizer where it named none."""
    model = dataclasses.replace(config.model, vocab_size=corpus.check(config.model.vocab_size))
    return dataclasses.replace(config, model=model)


def check_corners(space: Space, lower: Callable[[Sequence[Point]], Any]) -> None:
    """Raises UsageError now, not in the middle of a run, where a bound is no allowed value.

    What a schedule allows depends on several of its numbers, so of these every corner is tried.
    """
    low, high = space.decode(np.zeros(len(space.names))), space.decode(np.ones(len(space.names)))
    ends = {
        d.name: d.distribution.values
        if isinstance(d.distribution, Choice)
        else (low[d.name], high[d.name])
        for d in space.dimensions
        if d.name.startswith("schedule.")
    }
    corners = itertools.islice(itertools.product(*ends.values()), MOST_CORNERS)
    lower([low, high, *({**low, **dict(zip(ends, corner, strict=True))} for corner in corners)])


def make_scheduler(config: Run, space: Space) -> Scheduler:
    """The scheduler of a command."""
    if isinstance(config, PbtRun):
        schedule = in_steps(config.schedule, config.tokens_per_step)
        start, length = schedule.decay(config.steps)
        anneals = config.schedule.kind != "constant" and length > 0
        anneal = int(start) if anneals and config.schedule.kind == "wsd" else None
        pbt = Pbt(space, config.pbt, config.steps, config.seed, anneal_start=anneal)
        return beside_fixed(pbt) if config.pbt.beside else Together({"pbt": pbt})
    segment = min(SEGMENT, config.steps)
    if isinstance(config, TrainRun) and config.schedule_from is not None:
        from jaxhpo.study.discovered import discovered

        rows = discovered(Path(config.schedule_from))
        return Replay(rows, config.steps, segment, config.seed)
    return Fixed([{}], config.steps, segment)


def make_engine(config: Run) -> Engine:
    """The engine of a config on the devices at hand, with the defaults of their kind."""
    execution = config.execution
    if config.data.batch_size % (execution.accumulate * execution.data):
        raise UsageError(
            f"data.batch_size={config.data.batch_size} is not a multiple of execution.accumulate="
            f"{execution.accumulate} times execution.data={execution.data}"
        )
    devices = execution.devices
    if devices is None:
        devices = min(len(jax.devices()), config.members * execution.data)
        devices = max(devices // execution.data, 1) * execution.data
    mesh = make_mesh(devices, execution.data)
    task = LanguageModel(
        config.model,
        config.optimizer,
        memory.unrolled(config),
        diagnose_every=config.tracker.diagnose_every,
    )
    rows = -(-config.members // (devices // execution.data))
    return Engine(
        task,
        mesh,
        config.members,
        run_seed=config.seed,
        chunk=memory.default_chunk(config, rows) if execution.chunk is None else execution.chunk,
        accumulate=execution.accumulate,
    )


def compile_programs(setup: Setup, plan: Plan, report: Callable[[str, float], None]) -> None:
    """Compiles what a run will call, side by side: XLA releases the interpreter while it works."""
    engine, config = setup.engine, setup.config
    host_rows, _ = Places().rows(plan, setup.lower)
    rows = engine.place(host_rows)
    population = engine.abstract(host_rows)
    shape = (config.data.batch_size, config.model.context + 1)
    stream = lambda steps: {"tokens": _abstract(engine, (1, steps, *shape), 2)}
    held_out = jax.tree.map(lambda x: _abstract(engine, x.shape, 1), setup.corpus.held_out)
    seed = engine.run_seed
    jobs = {
        "train": (population, rows, seed, stream(setup.extent.steps)),
        "assemble": (population, rows, seed),
        "evaluate": (population, rows, held_out),
    }
    if setup.extent.probe:
        jobs["probe"] = (population, rows, seed, stream(setup.extent.probe), held_out)
    with ThreadPoolExecutor(len(jobs)) as pool:
        futures = [pool.submit(engine.program, kind, *args) for kind, args in jobs.items()]
        for future in futures:
            future.result()
    for kind, seconds in engine.built:
        report(kind, seconds)


def _abstract(engine: Engine, shape: tuple[int, ...], axis: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, np.int32, sharding=by_batch(engine.mesh, axis))


def environment() -> dict[str, Any]:
    """What decides the last bits of a result, for the record."""
    device = jax.devices()[0]
    return {
        "python": platform.python_version(),
        "jax": jax.__version__,
        "jaxlib": version("jaxlib"),
        "platform": device.platform,
        "device_kind": device.device_kind,
        "devices": jax.device_count(),
        "pjrt_nproc": os.environ.get("PJRT_NPROC", ""),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "cpu": platform.processor() or platform.machine(),
    }
