"""Laws of trials of different lengths: each is trained to its own end and no further."""

import math

import pytest

from jaxhpo.search.config import SearchConfig
from jaxhpo.search.lengths import OwnLengths
from jaxhpo.search.plan import Plan, Result
from jaxhpo.search.space import Space
from jaxhpo.search.table import make

SPACE = Space.from_mapping({"epochs": "int(1, 5)"}, lambda name: False, ["epochs"])
STEPS, EPOCH = 50, 10


def search(name: str, **options) -> OwnLengths:
    config = SearchConfig(scheduler=name, trials=8, segment=7, **options)
    return OwnLengths(make(name, config, SPACE, STEPS, 3), lambda point: point["epochs"] * EPOCH)


def run(scheduler) -> tuple[list[Plan], dict[int, int], dict[int, int]]:
    """Plans, the steps of each trial, and its length; the loss tells its epochs apart."""
    plans, made, length = [], {}, {}
    plan = scheduler.first()
    while plan is not None:
        plans.append(plan)
        report = []
        for row in plan.assignments:
            length[row.trial] = row.point["epochs"] * EPOCH
            made[row.trial] = (0 if row.parent is None else made[row.trial]) + row.steps
            loss = abs(3 - row.point["epochs"]) + 1 / (1 + made[row.trial])
            report.append(Result(row.trial, made[row.trial], loss, loss, (loss,)))
        plan = scheduler.next(tuple(report))
    return plans, made, length


@pytest.mark.parametrize("name", ["random", "tpe", "sobol"])
def test_every_trial_makes_its_own_steps(name: str) -> None:
    plans, made, length = run(search(name))
    assert len(made) == 8 and made == length and len(set(length.values())) > 2
    assert all(row.steps > 0 for plan in plans for row in plan.assignments)


@pytest.mark.parametrize("name", ["asha", "two-stage", "halving", "hyperband"])
def test_no_trial_of_a_search_with_rungs_goes_beyond_its_end(name: str) -> None:
    _, made, length = run(search(name, rank="loss"))
    assert all(made[trial] <= length[trial] for trial in made)
    assert any(made[trial] == length[trial] for trial in made)


def test_a_trial_that_has_ended_keeps_its_place_until_the_search_lets_it_go() -> None:
    plans, _, length = run(search("random"))
    for plan in plans[:-1]:
        held = {row.trial for row in plan.assignments} | set(plan.paused)
        assert held == set(length), "random search holds all of its trials to the end"


def test_equal_reports_give_equal_plans() -> None:
    scheduler = search("two-stage", rank="loss")
    assert run(scheduler)[0] == run(scheduler)[0] == run(search("two-stage", rank="loss"))[0]


def test_the_inner_search_is_told_the_last_result_again() -> None:
    scheduler = search("random")
    told = []
    inner, original = scheduler.inner, scheduler.inner.next
    inner.next = lambda report: (told.append(report), original(report))[1]
    _, _, length = run(scheduler)
    last = {result.trial: result for result in told[-1]}
    assert {trial: result.step for trial, result in last.items()} == dict.fromkeys(length, STEPS)
    for trial, result in last.items():
        expected = abs(3 - length[trial] / EPOCH) + 1 / (1 + length[trial])
        assert math.isclose(result.loss, expected)
