"""Which trial lives in which place, and what a plan means for the device."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxhpo.population.rows import PARTS, Rows, make_rows
from jaxhpo.search.plan import Assignment, Plan, Point


@dataclass(frozen=True)
class Places:
    """The trials of a population in the order of their places, and the step each has reached."""

    trials: tuple[int, ...] = ()
    steps: tuple[int, ...] = ()

    def step_of(self, trial: int) -> int:
        return self.steps[self.trials.index(trial)]

    def after(self, plan: Plan) -> "Places":
        """The places once the plan's segment has been trained."""
        starts = self.starts(plan)
        ends = [start + row.steps for start, row in zip(starts, plan.assignments, strict=True)]
        return Places(tuple(row.trial for row in plan.assignments), tuple(ends))

    def starts(self, plan: Plan) -> list[int]:
        """The step at which each row of the plan begins its segment."""
        return [self._start(row) for row in plan.assignments]

    def _start(self, row: Assignment) -> int:
        if row.parent is None or "step" not in row.keep:
            return 0
        return self.step_of(row.parent.trial)

    def moves(self, plan: Plan) -> bool:
        """Whether the plan changes who lives where; if not, there is nothing to assemble."""
        stay = self.trials[: len(plan.assignments)]
        return stay != tuple(row.trial for row in plan.assignments) or not all(
            row.carries_on for row in plan.assignments
        )

    def rows(self, plan: Plan, lower: Callable[[Sequence[Point]], Any]) -> tuple[Rows, list[int]]:
        """The plan as arrays [P], and the steps at which its streams of batches start.

        Rows at one step share a stream; `Rows.streams` says which is whose.
        """
        assignments = plan.assignments
        starts = self.starts(plan)
        streams = sorted(set(starts))
        rows = make_rows(
            hyperparams=lower([row.point for row in assignments]),
            seeds=[row.seed for row in assignments],
            steps=[row.steps for row in assignments],
            probe=[row.probe for row in assignments],
            parents=[
                place if row.parent is None else self.trials.index(row.parent.trial)
                for place, row in enumerate(assignments)
            ],
            newborn=[row.parent is None for row in assignments],
            keep=np.array([[part in row.keep for part in PARTS] for row in assignments]),
            streams=[streams.index(start) for start in starts],
        )
        return rows, streams
