"""A proposer that asks one of Optuna's samplers and tells it the results; nothing is stored.

A search that is resumed builds the study again by asking and telling as before: a sampler with the
same seed gives the same answers.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxhpo.errors import UsageError
from jaxhpo.search.plan import Point
from jaxhpo.search.samplers import (
    make_sampler,
    needs_library,
    parameters,
    quietly,
    suggested,
)
from jaxhpo.search.space import Space

TRIES = 10
"""Proposals that break a constraint, or are known to diverge, before one is drawn at random."""


class Bayes:
    """Points by ask and tell. `steps` are those of a full trial.

    A trial that was ranked on the way is told as pruned, with its score at the furthest step that
    it has reached; should it be carried on, what was told is replaced. One that diverged is told
    with an infinite loss (not every sampler knows of infeasible trials, and failed ones teach them
    nothing), and its point is not proposed again.
    """

    def __init__(
        self,
        name: str,
        space: Space,
        seed: int,
        trials: int,
        steps: int,
        initial: Sequence[Point] = (),
    ) -> None:
        self.name, self.space, self.seed = name, space, seed
        self.trials, self.steps = trials, steps
        self.initial = tuple(space.check(point) for point in initial)
        self.start()

    @property
    def limit(self) -> None:
        return None

    def foreseen(self, count: int) -> None:
        return None

    def start(self) -> None:
        sampler = make_sampler(self.name, self.space, self.seed, self.trials)
        self._study, self._storage = _study(sampler)
        self._numbers: list[int] = []  # by trial: its number in the study
        self._points: list[Point] = []
        self._diverged: list[Point] = []
        self._results: dict[int, tuple[int, float]] = {}  # not told yet, by number

    def propose(self, trial: int) -> Point:
        with quietly():
            self._tell()
            number, point = self._ask(trial)
        self._numbers.append(number)
        self._points.append(point)
        return point

    def report(self, trial: int, step: int, score: float) -> bool:
        self._results[self._numbers[trial]] = (step, score)
        if not math.isfinite(score):
            self._diverged.append(self._points[trial])
        return True

    def leave(self, trial: int) -> None:
        pass

    def _ask(self, trial: int) -> tuple[int, Point]:
        """The number of a new trial of the study, and its point, which is allowed."""
        if trial < len(self.initial):
            return self._enqueued(self.initial[trial])
        for _ in range(TRIES):
            asked, point = ask(self._study, self.name, self.space)
            if self.space.allows(point) and point not in self._diverged:
                return asked.number, point
            self._study.tell(asked, state=states().FAIL)
        rng = np.random.default_rng([self.seed, trial])
        return self._enqueued(self.space.sample_new(rng, self._diverged))

    def _enqueued(self, point: Point) -> tuple[int, Point]:
        self._study.enqueue_trial(parameters(point, self.space))
        return ask(self._study, self.name, self.space)[0].number, point

    def _tell(self) -> None:
        """Tells what was reported since the last proposal, in the order of trials."""
        revised = {}
        for number, (step, score) in sorted(self._results.items()):
            if step >= self.steps and math.isfinite(score) and self._running(number):
                self._study.tell(number, score)
            else:
                revised[number] = (step, score)
        self._results = {}
        if revised:
            self._study, self._storage = _revised(self._study, self._storage, revised, self.steps)

    def _running(self, number: int) -> bool:
        return self._study.get_trials(deepcopy=False)[number].state == states().RUNNING


def ask(study: Any, name: str, space: Space) -> tuple[Any, Point]:
    """A new trial of a study, and the point that it suggests.

    Raises UsageError where the sampler lacks a library or can't search the space.
    """
    asked = study.ask()
    try:
        return asked, suggested(asked, space)
    except ImportError as error:
        raise needs_library(name, error) from None
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"search.proposer={name!r}: {reason}") from None


def states() -> Any:
    from optuna.trial import TrialState

    return TrialState


def _study(sampler: Any) -> tuple[Any, Any]:
    """A study in memory, and where it is stored."""
    import optuna

    with quietly():
        storage = optuna.storages.InMemoryStorage()
        return optuna.create_study(storage=storage, sampler=sampler, direction="minimize"), storage


def _revised(
    study: Any, storage: Any, results: dict[int, tuple[int, float]], steps: int
) -> tuple[Any, Any]:
    """The same study with the results of some trials: Optuna never changes a finished one."""
    new, new_storage = _study(study.sampler)
    before = storage.get_study_system_attrs(storage.get_study_id_from_name(study.study_name))
    for key, value in before.items():
        study_id = new_storage.get_study_id_from_name(new.study_name)
        new_storage.set_study_system_attr(study_id, key, value)
    for trial in study.get_trials(deepcopy=False):
        if trial.number in results:
            trial = _with_result(trial, *results[trial.number], steps)
        new.add_trial(trial)
    return new, new_storage


def _with_result(trial: Any, step: int, score: float, steps: int) -> Any:
    import optuna

    finite = math.isfinite(score)
    return optuna.trial.create_trial(
        state=states().PRUNED if finite and step < steps else states().COMPLETE,
        value=score if finite else math.inf,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs=trial.user_attrs,
        system_attrs=trial.system_attrs,
        intermediate_values={step: score} if finite else {},
    )
