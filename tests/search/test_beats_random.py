"""At equal member-steps, searches find better points than random search does, where they should."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from jaxhpo.search import Fixed, PbtConfig, Scheduler, SearchConfig, Space, make
from tests.contracts.toy import Scored, drive

NAMES = ("x", "y", "z")
SPACE = Space.from_mapping(dict.fromkeys(NAMES, "uniform(0, 1)"), lambda name: False, NAMES)
OPTIMUM = np.array([0.3, 0.6, 0.8])
STEPS, SEEDS = 81, 24


def quadratic(point) -> float:
    return float(((SPACE.encode(point) - OPTIMUM) ** 2).sum())


def curve(row, step: int) -> float:
    """The quadratic, hidden at first by what every trial still has to learn."""
    own = np.random.default_rng([row.seed, 7]).random()
    return quadratic(row.point) + (0.5 + 0.1 * own) * (1 - step / STEPS)


def best(history) -> float:
    """The best of the trials that were trained to the end."""
    return min((r.score for _, report in history for r in report if r.step == STEPS))


def spent(history) -> int:
    return sum(row.steps for plan, _ in history for row in plan.assignments)


def wins(search: Callable[[int], Scheduler], loss=curve) -> int:
    """Seeds of SEEDS with which a search ends better than random search with as many steps."""
    won = 0
    for seed in range(SEEDS):
        history = drive(search(seed), engine=Scored(loss, STEPS))
        trials = spent(history) // STEPS
        points = [SPACE.sample(np.random.default_rng([seed, 99, i])) for i in range(trials)]
        random = drive(Fixed(points, STEPS, STEPS), engine=Scored(loss, STEPS))
        won += best(history) < best(random)
    return won


SURE = 18
"""Wins of 24 that a search no better than random would have with a chance of 1.1%."""

SEARCHES = {
    "halving": {"trials": 81, "min_steps": 3},
    "asha": {"trials": 81, "min_steps": 3, "places": 9},
    "hyperband": {"min_steps": 3},
    "median": {"trials": 80, "places": 8, "min_steps": 9},
    "two-stage": {"trials": 60, "keep": 4, "proposer": "random"},
    "bohb": {"min_steps": 3, "passes": 2},
    "tpe": {"trials": 32},
    "asha of tpe": {"trials": 60, "min_steps": 3, "places": 6, "proposer": "tpe"},
}


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_beats_random_search_at_equal_steps(name):
    config = SearchConfig(rank="loss", **SEARCHES[name])
    assert wins(lambda seed: make(name.split()[0], config, SPACE, STEPS, seed)) >= SURE


def test_random_search_does_not_beat_itself():
    config = SearchConfig(trials=20)
    assert 24 - SURE < wins(lambda seed: make("random", config, SPACE, STEPS, seed)) < SURE


class Learning(Scored):
    """A state that falls with every step, the faster the nearer the point; copies inherit it."""

    def __init__(self) -> None:
        super().__init__(lambda row, step: math.nan, STEPS)
        self.states: dict[int, float] = {}

    def run(self, plan):
        self.before = dict(self.states)
        return super().run(plan)

    def result(self, row):
        state = 1.0 if row.parent is None else self.before[row.parent.trial]
        # the best point moves while the state is trained, as a good learning rate does
        moving = OPTIMUM * (1 - 0.5 * self.steps[row.trial] / STEPS)
        apart = float(((SPACE.encode(row.point) - moving) ** 2).sum())
        state *= (1 - 0.1 * math.exp(-10 * apart)) ** row.steps
        self.states[row.trial] = state
        self.loss = lambda _, step: state
        return super().result(row)


@pytest.mark.parametrize("name", ["pbt", "pb2"])
def test_population_based_training_beats_fixed_points_at_equal_steps(name):
    config = PbtConfig(members=8, interval=3, fitness="loss")
    gains = []
    for seed in range(12):
        found = make(name, SearchConfig(), SPACE, STEPS, seed, pbt=config)
        fixed = make("random", SearchConfig(trials=8), SPACE, STEPS, seed + 1000)
        ends = [best(drive(each, engine=Learning())) for each in (fixed, found)]
        gains.append(math.log(ends[0] / ends[1]))
    t = np.mean(gains) / (np.std(gains, ddof=1) / math.sqrt(len(gains)))
    assert t > 2.72, "one-sided p below 1%"
