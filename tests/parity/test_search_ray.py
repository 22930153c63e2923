"""Stoppers against Ray Tune's schedulers and Optuna's pruners, on the same scores."""

from types import SimpleNamespace

import numpy as np
import pytest

from jaxhpo.search.asha import Stopping
from jaxhpo.search.rungs import brackets, rungs, sizes
from jaxhpo.search.stoppers import Median, Outcome

schedulers = pytest.importorskip("ray.tune.schedulers")
MOST = 81


def scores(seed: int, trials: int, steps: int) -> np.ndarray:
    """Learning curves f64[trials, steps] that cross now and then."""
    rng = np.random.default_rng(seed)
    level, fall = rng.random((trials, 1)), rng.random((trials, 1))
    return level + fall / np.sqrt(np.arange(1, steps + 1)) + 0.05 * rng.random((trials, steps))


def order(seed: int, trials: int, ends: tuple[int, ...]):
    """(trial, step) in an order in which workers of different speed might report them."""
    rng = np.random.default_rng(seed)
    speed = rng.uniform(0.5, 2.0, trials)
    times = [(end / speed[t] + 3 * t, t, end) for t in range(trials) for end in ends]
    return [(trial, end) for _, trial, end in sorted(times)]


def ours(stopper, curves: np.ndarray, events) -> dict[int, int]:
    """Trial -> the step at which it stopped, where it hears of every event that it lets happen."""
    born = iter(range(len(curves)))
    for _ in curves:
        stopper.job(lambda fork: next(born))
    stopped: dict[int, int] = {}
    for trial, step in events:
        if trial in stopped:
            continue
        stopper.report([Outcome(trial, step, float(curves[trial, step - 1]))])
        if stopper.job(lambda fork: None) is None:
            stopped[trial] = step
    return stopped


def rays(scheduler, curves: np.ndarray, events) -> dict[int, int]:
    controller = SimpleNamespace(get_live_trials=lambda: [])
    trials = [SimpleNamespace(trial_id=str(i), status="RUNNING") for i in range(len(curves))]
    hashable = [type("T", (), vars(trial))() for trial in trials]
    for trial in hashable:
        scheduler.on_trial_add(controller, trial)
    stopped: dict[int, int] = {}
    for trial, step in events:
        if trial in stopped:
            continue
        result = {"training_iteration": step, "loss": float(curves[trial, step - 1])}
        if scheduler.on_trial_result(controller, hashable[trial], result) == "STOP":
            stopped[trial] = step
    return stopped


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("eta", [2, 3, 4])
def test_asha_that_stops_stops_whom_ray_stops(seed, eta):
    curves = scores(seed, 40, MOST)
    ends = rungs(MOST, eta, 1, 40)
    events = order(seed, 40, ends)
    theirs = schedulers.AsyncHyperBandScheduler(
        time_attr="training_iteration",
        metric="loss",
        mode="min",
        max_t=MOST,
        grace_period=1,
        reduction_factor=eta,
        brackets=1,
    )
    stopped = ours(Stopping(40, ends, eta), curves, events)
    assert stopped == rays(theirs, curves, events)
    assert len(set(stopped.values())) > 2, "trials stop on several rungs"


@pytest.mark.parametrize("seed", range(5))
def test_median_stopping_stops_whom_ray_stops(seed):
    curves = scores(seed, 20, 60)
    stopper = Median(20, 60, 10, least=3)
    events = order(seed, 20, stopper.ends)
    theirs = schedulers.MedianStoppingRule(
        time_attr="training_iteration",
        metric="loss",
        mode="min",
        grace_period=10,
        min_samples_required=3,
    )
    stopped = ours(stopper, curves, events)
    expected = rays(theirs, curves, events)
    # Ray's rule leaves the end of a trial to the trainer
    assert {t: s for t, s in stopped.items() if s < 60} == {
        t: s for t, s in expected.items() if s < 60
    }
    assert any(step < 60 for step in stopped.values())


@pytest.mark.parametrize("steps", [9, 27, 81, 243])
def test_brackets_start_as_many_trials_on_as_many_steps_as_rays(steps):
    theirs = schedulers.HyperBandScheduler(
        time_attr="training_iteration", metric="loss", mode="min", max_t=steps
    )
    found = [bracket[0] for bracket in brackets(steps, 3, 1, 0)]
    # int() of a float product: Ray's first rung may be one short of the exact quotient
    assert [n for n, _ in found] == [theirs._get_n0(s) for s in reversed(range(len(found)))]
    for (_, r), s in zip(found, reversed(range(len(found))), strict=True):
        assert r - theirs._get_r0(s) in (0, 1) and r * 3**s == steps


def test_brackets_start_as_many_trials_as_optunas():
    optuna = pytest.importorskip("optuna")
    theirs = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=81, reduction_factor=3)
    theirs._n_brackets = 5
    budgets = [theirs._calculate_trial_allocation_budget(i) for i in range(5)]
    assert [bracket[0][0] for bracket in brackets(81, 3, 1, 0)] == budgets


@pytest.mark.parametrize("count", [1, 2, 3, 8, 9, 27, 34, 81])
def test_as_many_are_promoted_as_optuna_promotes(count):
    optuna = pytest.importorskip("optuna")
    pruners = optuna.pruners._successive_halving
    values = np.random.default_rng(count).random(count).tolist()
    direction = optuna.study.StudyDirection.MINIMIZE
    promoted = [
        value
        for value in values
        if pruners._is_trial_promotable_to_next_rung(value, list(values), 3, direction)
    ]
    assert len(promoted) == sizes(count, 3, 2)[1]
