"""Rung sizes and promotions: equal to the closed form, and to what the scores say."""

import math
from dataclasses import replace

import numpy as np
import pytest

from jaxhpo.search import SearchConfig, Space, make
from jaxhpo.search.rungs import brackets, rungs, sizes
from tests.contracts.toy import Scored, drive

SPACE = Space.from_mapping({"x": "uniform(0, 1)"}, lambda name: False, ["x"])
HYPERBAND = (
    ((81, 1), (27, 3), (9, 9), (3, 27), (1, 81)),
    ((34, 3), (11, 9), (3, 27), (1, 81)),
    ((15, 9), (5, 27), (1, 81)),
    ((8, 27), (2, 81)),
    ((5, 81),),
)
"""R = 81, eta = 3."""


def noise(row, step):
    """A score that says nothing but is always the same: rank orders change from rung to rung."""
    return float(np.random.default_rng([row.trial, step]).random())


def ran(name, steps, loss=noise, **options):
    config = SearchConfig(rank="loss", **options)
    scheduler = make(name, config, SPACE, steps, 0)
    return scheduler, drive(scheduler, engine=Scored(loss, steps))


def reached(history) -> dict[int, dict[int, float]]:
    """step -> trial -> score, over the whole history."""
    found: dict[int, dict[int, float]] = {}
    for _, report in history:
        for result in report:
            found.setdefault(result.step, {})[result.trial] = result.score
    return found


def test_hyperband_has_the_brackets_of_the_closed_form():
    assert brackets(81, 3, 1, 0) == HYPERBAND


@pytest.mark.parametrize("places", [None, 7])
def test_hyperband_trains_exactly_its_brackets(places):
    scheduler, history = ran("hyperband", 81, min_steps=1, places=places)
    rows = [row for plan, _ in history for row in plan.assignments]
    assert len({row.trial for row in rows}) == 81 + 34 + 15 + 8 + 5
    ends: dict[int, int] = {}
    for row in rows:
        ends[row.trial] = ends.get(row.trial, 0) + row.steps
    last = {step: sum(end == step for end in ends.values()) for step in (1, 3, 9, 27, 81)}
    # of each bracket, those of a rung that are not on the next
    stopped: dict[int, int] = dict.fromkeys(last, 0)
    for bracket in HYPERBAND:
        for (n, r), (after, _) in zip(bracket, (*bracket[1:], (0, 0)), strict=True):
            stopped[r] += n - after
    assert last == stopped
    assert sum(row.steps for row in rows) == scheduler.extent.trained


@pytest.mark.parametrize("places", [None, 10, 1])
def test_halving_promotes_the_best_third_of_every_rung(places):
    _, history = ran("halving", 81, trials=81, min_steps=1, places=places)
    at = reached(history)
    for rung, following in ((1, 3), (3, 9), (9, 27), (27, 81)):
        best = sorted(at[rung], key=at[rung].__getitem__)[: len(at[rung]) // 3]
        assert set(at[following]) == set(best)
    assert [len(at[step]) for step in (1, 3, 9, 27, 81)] == [81, 27, 9, 3, 1]


def test_rungs_grow_by_eta_and_end_with_the_budget():
    assert rungs(100, 4, 2, 0) == (2, 8, 32, 100)
    assert rungs(600, 3, None, 16) == (67, 200, 600)
    assert sizes(20, 3, 4) == (20, 6, 2, 1)


@pytest.mark.parametrize("places", [1, 4, 13])
def test_asha_promotes_only_who_is_in_the_top_third_of_the_rung_by_then(places):
    _, history = ran("asha", 81, trials=40, min_steps=1, places=places)
    ends, scores = (1, 3, 9, 27, 81), {}
    at: dict[int, int] = {}
    promotions = 0
    for plan, report in history:
        for row in plan.assignments:
            standing = at.get(row.trial, 0)
            if standing in ends:
                rung = scores[standing]
                better = sum(score < rung[row.trial] for score in rung.values())
                everything = len(at) == 40 and len(plan.assignments) == 1
                assert better < len(rung) // 3 or everything
                promotions += 1
        for result in report:
            at[result.trial] = result.step
            if result.step in ends:
                scores.setdefault(result.step, {})[result.trial] = result.score
    assert promotions >= 13


def test_asha_with_one_place_follows_the_paper_trial_by_trial():
    """Algorithm 2 of Li et al. 2020, written down again: one worker, who asks for jobs in turn."""
    _, history = ran("asha", 27, trials=30, min_steps=1, places=1)
    ours: list[tuple[int, int]] = []
    at: dict[int, int] = {}
    for plan, report in history:
        (row,), (result,) = plan.assignments, report
        at[row.trial] = result.step
        if result.step in (1, 3, 9, 27):
            ours.append((row.trial, result.step))
    ends, recorded, promoted = (1, 3, 9, 27), [{}, {}, {}, {}], [set(), set(), set(), set()]
    theirs, started = [], 0

    class Row:
        def __init__(self, trial):
            self.trial = trial

    def job():
        for k in (2, 1, 0):
            order = sorted(recorded[k], key=recorded[k].__getitem__)[: len(recorded[k]) // 3]
            for trial in order:
                if trial not in promoted[k]:
                    promoted[k].add(trial)
                    return trial, k + 1
        return started, 0

    while True:
        trial, k = job()
        started += k == 0
        if started > 30:
            break
        recorded[k][trial] = noise(Row(trial), ends[k])
        theirs.append((trial, ends[k]))
    full = [trial for trial, end in theirs if end == 27]
    assert ours[: len(theirs)] == theirs
    assert full or ours[len(theirs) :], "someone always trains to the end"


@pytest.mark.parametrize("continued", [0, 3])
def test_the_two_stage_search_costs_what_its_formula_says(continued):
    scheduler, history = ran(
        "two-stage", 100, trials=20, keep=5, continued=continued, proposer="random", places=6
    )
    spent = sum(row.steps for plan, _ in history for row in plan.assignments)
    assert spent == 20 * 20 + (5 + continued) * 80 == scheduler.extent.trained
    at = reached(history)
    order = sorted(at[20], key=at[20].__getitem__)
    assert set(order[:5]) <= set(at[100]) and len(at[100]) == 5 + continued
    carried_on = [row for plan, _ in history for row in plan.assignments if row.parent is not None]
    assert all(row.carries_on for row in carried_on)


def test_a_trial_that_diverged_leaves_its_place_to_the_next_at_once():
    broken = lambda row, step: math.nan if row.trial < 4 else noise(row, step)
    _, history = ran("random", 300, loss=broken, trials=8, places=2, segment=100)
    assert [[row.trial for row in plan.assignments] for plan, _ in history][:3] == [
        [0, 1],
        [2, 3],
        [4, 5],
    ]


def test_a_probe_follows_every_rung_but_the_last():
    config = SearchConfig(trials=9, min_steps=10, probe_share=0.25)
    scheduler = make("halving", config, SPACE, 90, 0)
    history = drive(scheduler, engine=Scored(noise, 90))
    probes = [row.probe for plan, _ in history for row in plan.assignments]
    assert sum(probes) == (9 + 3) * 2 == scheduler.extent.probed
    assert all(row.probe == 0 for row in history[-1][0].assignments)


class Hidden(Scored):
    """Trials whose raw loss is NaN though their cool-down's is not, and the other way round."""

    def result(self, row):
        result = super().result(row)
        broken = {0: {"loss": math.nan}, 1: {"score": math.inf}}.get(row.trial, {})
        return replace(result, **broken)


def test_a_trial_is_let_go_if_either_of_its_losses_is_not_finite():
    config = SearchConfig(trials=4, places=2, rank="loss")
    scheduler = make("random", config, SPACE, 300, 0)
    history = drive(scheduler, engine=Hidden(lambda row, step: 0.5, 300))
    assert [row.trial for row in history[1][0].assignments] == [2, 3]
    halving = make("halving", SearchConfig(trials=3, eta=3, min_steps=10), SPACE, 30, 0)
    history = drive(halving, engine=Hidden(lambda row, step: float(row.trial), 30))
    assert [row.trial for row in history[-1][0].assignments] == [2]
