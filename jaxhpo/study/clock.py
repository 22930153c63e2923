"""Learning rates on a clock that is shifted against the step: what a fork continues or restarts."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxhpo.config.run import Run
from jaxhpo.population import hyperparams
from jaxhpo.schedules import Shifted, in_steps
from jaxhpo.schedules.config import ScheduleConfig
from jaxhpo.search.plan import Point

Lower = Callable[[Sequence[Point]], Any]


@dataclass(frozen=True)
class Clock:
    """The schedule's clock is `shift` steps behind the trial's step."""

    shift: int = 0

    def __call__(self, lower: Lower) -> Lower:
        """Rows whose schedules run on this clock; the very same rows where it is not shifted."""
        if not self.shift:
            return lower

        def shifted(points: Sequence[Point]) -> Any:
            rows = lower(points)
            by = np.full(len(points), self.shift, np.int32)
            return dataclasses.replace(rows, schedule=Shifted(rows.schedule, by))

        return shifted


def rate_at(config: Run, point: Point, clock: Clock, step: int) -> float:
    """Learning rate of update number `step` with a config and a point."""
    import jax

    rows = clock(lambda points: hyperparams.lower(config, tuple(point), points))([point])
    return float(jax.tree.map(lambda leaf: leaf[0], rows.schedule)(np.int32(step)))


def in_use(config: Run, point: Point) -> ScheduleConfig:
    """The schedule of a config and a point, with its lengths in steps."""
    prefix = "schedule."
    own = {n.removeprefix(prefix): v for n, v in point.items() if n.startswith(prefix)}
    return in_steps(dataclasses.replace(config.schedule, **own), config.tokens_per_step)


def in_its_unit(config: Run, steps: float) -> float:
    """A number of steps as a length of the config's schedule, which may count tokens."""
    return float(steps * (config.tokens_per_step if config.schedule.unit == "tokens" else 1))
