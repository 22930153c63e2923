"""Learning rates as numbers: of a config, of a published recipe, of what a run discovered."""

import dataclasses
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxhpo import schedules
from jaxhpo.config import KINDS, from_dict
from jaxhpo.config.recipes import Recipe
from jaxhpo.errors import UsageError
from jaxhpo.record.history import history
from jaxhpo.schedules import Batches, ScheduleConfig, Spliced
from jaxhpo.study.discovered import discovered

POINTS = 600
"""Steps at which a longer schedule is looked at; where a phase begins is always among them."""

BLOCK = 1024
"""A multiple of so many steps is looked at, the last ones for nothing."""


@dataclass(frozen=True)
class Curve:
    """The rate of some updates of a run, the tokens seen before each, and the run's length."""

    name: str
    steps: tuple[int, ...]
    tokens: tuple[int, ...]
    rates: tuple[float, ...]
    length: int


def of_config(
    name: str, schedule: ScheduleConfig, steps: int, batches: Batches, tokens: float | None = None
) -> Curve:
    """A schedule in a run of `steps`; `tokens` is their number where a ramp makes it inexact.

    Raises UsageError where the schedule's numbers do not fit the run.
    """
    if schedule.unit == "tokens" and len(batches.stages) > 1:
        over = batches.tokens(steps) if tokens is None else tokens
        table = schedules.over_tokens(schedule, over, batches)
        last = batches.stages[-1][1]
        corners = [batches.steps(int(start * last)) for start in _starts(table.schedule)]
        corners += [float(step) for step in table.step]
    else:
        batch = batches.stages[-1][1]
        table = schedules.lower(schedules.in_steps(schedule, batch), steps)
        corners = _starts(table)
    return _curve(name, table, steps, batches, corners)


def of_recipe(name: str, recipe: Recipe, schedule: ScheduleConfig) -> Curve:
    """A recipe at its published length, with `schedule` in place of its own."""
    batches = schedules.ramp(*recipe.ramp) if recipe.ramp else Batches(recipe.batches)
    steps = recipe.length
    if recipe.schedule.unit == "tokens":
        steps = batches.steps(int(recipe.length))
    tokens = recipe.length if schedule.unit == "tokens" else None
    return of_config(name, schedule, max(math.ceil(steps), 1), batches, tokens)


def of_run(run: Path) -> Curve:
    """The rates that the best trial of a finished run trained with.

    Raises UsageError where `run` is no run directory, or not a finished one.
    """
    spliced, config = _discovered(run)
    starts = [float(start) for start in spliced.starts]
    tables = np.asarray(spliced.schedules.start)
    corners = [*starts, *(float(start) for start in tables.ravel())]
    return _curve(run.name, spliced, config.steps, _constant(config.tokens_per_step), corners)


def discovered_schedule(run: Path | str) -> Spliced:
    """The learning rate that the best trial of a finished run trained with, as an optax schedule.

    A pytree of numpy arrays, usable without the run. What else the search changed, such as weight
    decay, is not in it. Raises UsageError where `run` is no run directory, or not a finished one.
    """
    return _discovered(Path(run))[0]


def _discovered(run: Path) -> tuple[Spliced, Any]:
    start = history(run).start
    if start is None:
        raise UsageError(f"{run} has an empty log; there is no schedule in it")
    config = from_dict(KINDS[start["command"]], start["config"])
    rows = []
    for step, point in discovered(run, "run"):
        changes = {
            name.removeprefix("schedule."): value
            for name, value in point.items()
            if name.startswith("schedule.")
        }
        schedule = dataclasses.replace(config.schedule, **changes)
        schedule = schedules.in_steps(schedule, config.tokens_per_step)
        rows.append((step, schedules.lower(schedule, config.steps)))
    return schedules.splice(rows), config


def as_json(curves: Iterable[Curve]) -> str:
    """The curves as a JSON array of objects: name, length, steps, tokens, rates."""
    return json.dumps([dataclasses.asdict(curve) for curve in curves], indent=1)


def _constant(tokens_per_step: int) -> Batches:
    return Batches(((0, tokens_per_step),))


def _starts(table: Any) -> list[float]:
    return [float(start) for start in np.asarray(table.start)]


def _curve(
    name: str,
    schedule: Callable[[Any], Any],
    length: int,
    batches: Batches,
    corners: Iterable[float],
) -> Curve:
    steps = sampled(length, corners)
    # in whole blocks: JAX compiles every operation for every number of steps
    at = np.resize(np.array(steps, np.float32), -(-len(steps) // BLOCK) * BLOCK)
    rates = np.asarray(schedule(at), np.float64)[: len(steps)]
    tokens = tuple(batches.tokens(step) for step in steps)
    return Curve(name, steps, tokens, tuple(float(f"{rate:.7g}") for rate in rates), length)


def sampled(length: int, corners: Iterable[float]) -> tuple[int, ...]:
    """Updates of a run of `length` to look at: evenly spaced, and both sides of each corner."""
    found = {round(i * (length - 1) / (POINTS - 1)) for i in range(POINTS)}
    for corner in corners:
        found |= {math.ceil(corner) - 1, math.ceil(corner)} if corner < 2**31 else set()
    return tuple(sorted(step for step in found if 0 <= step < length))
