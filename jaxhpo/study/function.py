"""A search over the hyperparameters of a user's own function."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from jaxhpo.config import refuse_drift
from jaxhpo.config.run import FunctionRun
from jaxhpo.errors import UsageError
from jaxhpo.population.cache import use_compilation_cache
from jaxhpo.population.config import DistributedConfig, ExecutionConfig
from jaxhpo.population.engine import Engine
from jaxhpo.population.function import FunctionTask, lower_named
from jaxhpo.population.mesh import axes_of, make_mesh
from jaxhpo.population.sharding import check_function
from jaxhpo.record.config import CheckpointConfig, TrackerConfig
from jaxhpo.record.directory import CONFIG
from jaxhpo.record.history import History, history
from jaxhpo.search.config import PbtConfig, SearchConfig
from jaxhpo.search.space import Space
from jaxhpo.search.table import make
from jaxhpo.study.compile_group import CompileGroup
from jaxhpo.study.config_of import without_secrets
from jaxhpo.study.devices import axes_for
from jaxhpo.study.groups import Groups
from jaxhpo.study.hosts import PREPARING, joined
from jaxhpo.study.journal import LogJournal
from jaxhpo.study.outcome import Outcome, concluded
from jaxhpo.study.restoring import check_fingerprints
from jaxhpo.study.roles import check_same, created, opened, settled
from jaxhpo.study.runs import carry_out
from jaxhpo.study.setup import Setup


def search_function(
    *,
    init: Callable[..., Any],
    loss: Callable[..., Any],
    optimizer: Callable[..., Any],
    batch_at: Callable[[int, int], Any],
    held_out: Any,
    space: Mapping[str, str],
    steps: int,
    scheduler: str = "asha",
    trials: int = 16,
    seed: int = 0,
    rate: Callable[..., Any] | None = None,
    out: str | Path | None = None,
    resume: Literal["never", "auto"] = "never",
    search: SearchConfig | None = None,
    pbt: PbtConfig | None = None,
    execution: ExecutionConfig | None = None,
    checkpoint: CheckpointConfig | None = None,
    tracker: TrackerConfig | None = None,
    distributed: DistributedConfig | None = None,
) -> Outcome:
    """Searches the hyperparameters of any model that three pure functions describe.

    `init(key) -> params`; `loss(params, batch, hyperparams, key) -> f32[]`, where `key` is None
    when the held-out loss is asked for; `optimizer(hyperparams)` is an optax transformation.
    `hyperparams` maps the names of `space` to f32[] and may be used anywhere but in shapes.
    `batch_at(step, steps)` gives the training batches [S, B, ...] from a step on, the same whenever
    it is asked; `held_out` is [E, B, ...]. Trials that last make `steps` steps.

    `search` has the scheduler's other settings. With `resume="auto"` a run directory `out` that
    exists is carried on. Raises UsageError for what can't run, Interrupted when stopped after
    saving, Diverged when no trial has a finite loss.
    """
    config = FunctionRun(
        steps=steps,
        seed=seed,
        out=None if out is None else str(out),
        resume=resume,
        search=dataclasses.replace(search or SearchConfig(), scheduler=scheduler, trials=trials),
        pbt=pbt or PbtConfig(beside=False),
        execution=execution or ExecutionConfig(),
        distributed=distributed or DistributedConfig(),
        checkpoint=checkpoint or CheckpointConfig(),
        tracker=tracker or TrackerConfig(),
        space=dict(space),
    )
    task = FunctionTask(init, loss, optimizer, rate)
    with joined(config.distributed, config.execution, config.members) as hosts:
        config = settled(config, hosts)
        use_compilation_cache(config.execution)
        there = lambda: out is not None and (Path(out) / CONFIG).exists()
        again = hosts.from_first(lambda: resume == "auto" and there(), "whether to resume")
        run = hosts.together(lambda: opened(Path(out or ""), hosts), "the run") if again else None
        past = None if run is None else hosts.together(lambda: history(run.path), "the log")
        if past is not None and past.start is not None:
            hosts.together(lambda: refuse_drift(_config_of(past), without_secrets(config)), "drift")
            if (outcome := concluded(past)) is not None:
                return dataclasses.replace(outcome, first=hosts.first)
        begin = lambda: prepare(config, task, batch_at, held_out, LogJournal(past, hosts))
        setup = hosts.together(begin, "that all is set up", PREPARING)
        check_same(setup, hosts)
        if past is not None:
            check_fingerprints(past, setup.fingerprints)
        if run is None:
            run = created(config, hosts)
        return carry_out(setup, run, past, hosts)


def prepare(
    config: FunctionRun,
    task: FunctionTask,
    batch_at: Callable[[int, int], Any],
    held_out: Any,
    journal: LogJournal,
) -> Setup:
    """The parts of a study of one function: a single compile group.

    Raises UsageError for a space or scheduler that can't run.
    """
    names = list(config.space)
    space = Space.from_mapping(config.space, lambda name: False, names)
    lower_named(names, space.corners())
    scheduler = make(
        config.search.scheduler,
        config.search,
        space,
        config.steps,
        config.seed,
        pbt=config.pbt,
        journal=journal,
    )
    extent, execution = scheduler.extent, config.execution
    mesh = make_mesh(axes_for(config, extent.held))
    check_function(axes_of(mesh))
    engine = Engine(
        task,
        mesh,
        extent.held,
        run_seed=config.seed,
        chunk=execution.chunk or (1 if jax.default_backend() == "cpu" else extent.held),
        accumulate=execution.accumulate,
    )
    held_out = jax.tree.map(np.asarray, held_out)
    group = CompileGroup(
        engines=[engine],
        lower=functools.partial(lower_named, names),
        batch_at=lambda step, steps: jax.tree.map(np.asarray, batch_at(step, steps)),
        held_out=engine.stage(held_out, axis=1),
        segment=extent.steps,
        probe=extent.probe,
        streams=min(extent.starts, extent.held),
        example={},
    )
    shapes = jax.eval_shape(task.initialise, jax.random.key(0))
    return Setup(
        config=config,
        corpus=None,
        scheduler=scheduler,
        space=space,
        groups=Groups.of_one(group),
        opening=None,
        extent=extent,
        journal=journal,
        parameters=sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes)),
        fingerprints={"held_out": _digest(held_out)},
    )


def _config_of(past: History) -> FunctionRun:
    from jaxhpo.config import from_dict

    start = past.start or {}
    if start.get("command") != FunctionRun.command:
        raise UsageError(f"{past.path.parent} was not made by search_function; give another out")
    return from_dict(FunctionRun, start["config"])


def _digest(tree: Any) -> str:
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        digest.update(f"{leaf.dtype}{leaf.shape}".encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()
