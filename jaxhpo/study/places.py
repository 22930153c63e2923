"""Which trial lives in which place, and what a plan means for the device."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxhpo.population.rows import PARTS, Rows, make_rows
from jaxhpo.search.plan import Assignment, Plan, Point
from jaxhpo.study.placement import Shape, settle


@dataclass(frozen=True)
class Places:
    """The trials of a population in the order of their places, and the step each has reached.

    A free place has no trial (None) and step zero.
    """

    trials: tuple[int | None, ...] = ()
    steps: tuple[int, ...] = ()

    @property
    def held(self) -> tuple[int, ...]:
        """The trials that have a place."""
        return tuple(trial for trial in self.trials if trial is not None)

    def step_of(self, trial: int) -> int:
        """Raises ValueError where the trial has no place."""
        return self.steps[self.trials.index(trial)]

    def after(self, plan: Plan, shape: Shape | None = None) -> "Places":
        """The places while and after the plan's segment is trained; steps are those at its end.

        Rows and paused trials have a place, everybody else's is free. Without a `shape` nobody
        trains and nobody moves.
        """
        ends = {trial: self.step_of(trial) for trial in plan.paused}
        for row, start in zip(plan.assignments, self.starts(plan), strict=True):
            ends[row.trial] = start + row.steps
        work = {row.trial: row.steps + row.probe for row in plan.assignments}
        work |= {trial: 0 for trial in plan.paused}
        trials = tuple(trial if trial in ends else None for trial in self.trials)
        if shape is not None:
            trials = settle(trials, work, shape)
        return Places(trials, tuple(0 if t is None else ends[t] for t in trials))

    def starts(self, plan: Plan) -> list[int]:
        """The step at which each row of the plan begins its segment."""
        return [self._start(row) for row in plan.assignments]

    def _start(self, row: Assignment) -> int:
        if row.parent is None or "step" not in row.keep:
            return 0
        return self.step_of(row.parent.trial) if row.parent.step is None else row.parent.step

    def moves(self, plan: Plan, after: "Places") -> bool:
        """Whether the plan changes who lives where; if not, there is nothing to assemble."""
        stays = all(
            before == trial
            for before, trial in zip(self.trials, after.trials, strict=False)
            if trial is not None
        )
        untouched = all(row.carries_on and set(row.keep) == set(PARTS) for row in plan.assignments)
        return not (stays and untouched and len(self.trials) == len(after.trials))

    def restored(self, plan: Plan) -> dict[int, Assignment]:
        """The rows whose parents are older than what the places hold, by trial."""
        return {
            row.trial: row
            for row in plan.assignments
            if row.parent is not None
            and row.parent.step is not None
            and (
                row.parent.trial not in self.trials
                or self.step_of(row.parent.trial) != row.parent.step
            )
        }

    def rows(
        self,
        plan: Plan,
        after: "Places",
        streams: Sequence[int],
        lower: Callable[[Sequence[Point]], Any],
    ) -> Rows:
        """The plan as arrays [P], one row a place; a free place and a paused trial are idle.

        `streams` are the steps at which the streams of batches start; `Rows.streams` says which
        is whose. What must be restored from a checkpoint comes as a newborn.
        """
        by_trial = {row.trial: row for row in plan.assignments}
        starts = dict(zip(by_trial, self.starts(plan), strict=True))
        asked: list[Assignment | None] = [
            None if trial is None else by_trial.get(trial) for trial in after.trials
        ]
        restored = self.restored(plan)
        born = [row is not None and (row.parent is None or row.trial in restored) for row in asked]
        of = lambda row, name, other: other if row is None else getattr(row, name)
        return make_rows(
            hyperparams=_by_place(lower([row.point for row in plan.assignments]), asked, by_trial),
            seeds=[of(row, "seed", 0) for row in asked],
            steps=[of(row, "steps", 0) for row in asked],
            probe=[of(row, "probe", 0) for row in asked],
            parents=[
                0 if new else self._parent(place, row, after.trials[place])
                for place, (row, new) in enumerate(zip(asked, born, strict=True))
            ],
            newborn=born,
            keep=np.array([[part in of(row, "keep", PARTS) for part in PARTS] for row in asked]),
            streams=[0 if row is None else streams.index(starts[row.trial]) for row in asked],
        )

    def _parent(self, place: int, row: Assignment | None, trial: int | None) -> int:
        if row is not None and row.parent is not None:
            return self.trials.index(row.parent.trial)
        if trial is not None:
            return self.trials.index(trial)
        return place if place < len(self.trials) else 0


def _by_place(
    lowered: Any, asked: Sequence[Assignment | None], rows: Mapping[int, Assignment]
) -> Any:
    """Hyperparameters [P, ...] by place; idle places have those of the first row."""
    order = {trial: index for index, trial in enumerate(rows)}
    index = np.array([0 if row is None else order[row.trial] for row in asked])
    return jax.tree.map(lambda leaf: leaf[index], lowered)
