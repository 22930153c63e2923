"""Which population sizes are compiled, so that places that trials leave cost little.

Decided from the config alone: the same search resumed decides the same.
"""

import math
from collections.abc import Sequence

from jaxhpo.search.plan import Plan, Result, Scheduler
from jaxhpo.study.placement import Shape

COMPILE_SECONDS = 30.0
"""What the programs of one more size take to compile; right within a few times is enough."""

FLOPS_PER_SECOND = {"cpu": 2e10, "gpu": 1e13, "tpu": 1e13}
"""What a device really does of a small model in a second; right within a few times is enough."""

Round = tuple[int, int, int]
"""Trials that hold a place, rows that train, and steps of the longest row."""

MOST_ROUNDS = 10_000


def rehearse(scheduler: Scheduler) -> tuple[Round, ...]:
    """The rounds that a scheduler plans for made-up losses: how many trials, for how many steps."""
    rounds, plan, steps = [], scheduler.first(), {}
    while plan is not None and len(rounds) < MOST_ROUNDS:
        rows = plan.assignments
        rounds.append((len(rows) + len(plan.paused), len(rows), plan.max_steps))
        plan = scheduler.next(_made_up(plan, steps))
    return tuple(rounds)


def _made_up(plan: Plan, steps: dict[int, int]) -> tuple[Result, ...]:
    found = []
    for row in plan.assignments:
        start = 0 if row.parent is None else row.parent.step or steps.get(row.parent.trial, 0)
        steps[row.trial] = start + row.steps
        loss = 1.0 + ((row.trial * 7919) % 1009) / 1009
        found.append(Result(row.trial, steps[row.trial], loss, loss, (loss,) * 8))
    return tuple(found)


def lane_steps(rounds: Sequence[Round], shapes: Sequence[Shape]) -> int:
    """Steps of all lanes, idle ones too, if each round runs on the smallest shape that fits.

    A round may be of more trials than the largest shape holds: some are another group's.
    """
    total, most = 0, max(shape.size for shape in shapes)
    for held, rows, steps in rounds:
        fitting = [shape for shape in shapes if shape.size >= min(held, most)]
        shape = min(fitting, key=lambda shape: shape.size)
        a_shard = math.ceil(min(rows, shape.size) / shape.shards)
        chunks = math.ceil(a_shard / shape.chunk)
        total += shape.shards * chunks * shape.chunk * steps
    return total


def worth_compiling(
    rounds: Sequence[Round], shapes: Sequence[Shape], flops_per_step: float, backend: str
) -> tuple[Shape, ...]:
    """The shapes, largest first, without the smaller ones that cost more than they save.

    With chunks of one no idle row costs anything, and the largest is all there is.
    """
    kept = list(shapes[:1])
    rate = FLOPS_PER_SECOND.get(backend, FLOPS_PER_SECOND["gpu"])
    for shape in shapes[1:]:
        saved = lane_steps(rounds, kept) - lane_steps(rounds, [*kept, shape])
        if saved * flops_per_step / rate > COMPILE_SECONDS:
            kept.append(shape)
    return tuple(kept)
