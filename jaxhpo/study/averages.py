"""Averages of checkpoints, evaluated on the held-out part: one program for them all."""

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxhpo.config import is_static
from jaxhpo.config import replace as replaced
from jaxhpo.config.averages import AverageConfig
from jaxhpo.config.run import Run, TrainRun
from jaxhpo.errors import UsageError
from jaxhpo.population.cache import use_compilation_cache
from jaxhpo.population.config import prepare_backend
from jaxhpo.population.engine import Engine
from jaxhpo.population.member import Member
from jaxhpo.population.rows import make_rows
from jaxhpo.record.checkpoints import Store
from jaxhpo.record.directory import RunDirectory
from jaxhpo.record.history import history
from jaxhpo.study.forking import weights
from jaxhpo.study.implant import average, reader
from jaxhpo.study.inheritance import config_of
from jaxhpo.study.kept import Kept
from jaxhpo.study.opening import make_engine
from jaxhpo.study.setup import Setup, prepare


@dataclass(frozen=True)
class Averaged:
    """Held-out losses in nats per token: of each checkpoint, and of their average."""

    trial: int
    steps: tuple[int, ...]
    weights: tuple[float, ...]
    losses: tuple[float, ...]
    loss: float
    bits_per_byte: float
    params: Any
    """of the average, host arrays"""


def evaluate_average(path: Path | str, config: AverageConfig) -> Averaged:
    """The average of a run's checkpoints and what each is worth.

    The run may be training meanwhile: what is read is pinned. Raises UsageError for a checkpoint
    that was not kept, naming those that were.
    """
    if len(config.at) < 2:
        raise UsageError(f"at={','.join(config.at) or 'none'}; allowed: two checkpoints or more")
    run = RunDirectory.open(path)
    past = history(run.path)
    store = Store(run)
    kept = Kept.of(store, past)
    each = past.start["tokens_per_step"] if past.start else 0
    tokens = {taken.step: taken.step * each for _, taken in kept.members}
    found = [kept.find(text, "at", config.trial, tokens) for text in config.at]
    found.sort(key=lambda row: row[1].step)
    if len({trial for trial, _ in found}) > 1:
        raise UsageError("at: the best trial is not the same at each step; give --trial")
    trial, newest = found[-1]
    point = next(
        row["point"] for row in past.plans[newest.index]["assignments"] if row["trial"] == trial
    )
    prepare_backend(config.execution, len(found) + 1)
    use_compilation_cache(config.execution)
    setup = prepare(_as_train(config_of(past), point, config))
    engine = make_engine(setup.config, setup.opening.mesh, len(found) + 1)
    group = setup.groups.opened[()]
    read = reader(store, engine.abstract(group.rows_like()))
    members = [read(taken) for _, taken in found]
    shares = weights(len(found), config.ema)
    mean = average([member.params for member in members], shares)
    losses = _losses(engine, setup, [*members, Member(mean, members[-1].moments, members[-1].step)])
    return Averaged(
        trial=trial,
        steps=tuple(taken.step for _, taken in found),
        weights=shares,
        losses=losses[:-1],
        loss=losses[-1],
        bits_per_byte=losses[-1] / math.log(2) / setup.corpus.bytes_per_token,
        params=mean,
    )


def _as_train(config: Run, point: dict[str, Any], asked: AverageConfig) -> TrainRun:
    """The run's model and data, with the static values that a search gave to the member."""
    shared = {field.name: getattr(config, field.name) for field in fields(Run)}
    plain = TrainRun(**{**shared, "space": {}, "execution": asked.execution, "out": None})
    for name, value in point.items():
        if is_static(name):
            plain = replaced(plain, name, value)
    return plain


def _losses(engine: Engine, setup: Setup, members: list[Member]) -> tuple[float, ...]:
    group = setup.groups.opened[()]
    count = len(members)
    rows = make_rows(group.lower([{}] * count), seeds=[0] * count, steps=[1] * count)
    stack = lambda whole, *leaves: jax.device_put(
        np.concatenate(
            [np.stack(leaves), np.zeros((whole.shape[0] - count, *whole.shape[1:]))]
        ).astype(whole.dtype),
        whole.sharding,
    )
    population = jax.tree.map(stack, engine.abstract(rows), *members)
    losses = np.asarray(engine.evaluate(population, rows, setup.corpus.held_out))[:count]
    return tuple(setup.judge.mean(row) for row in losses)
