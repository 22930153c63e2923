"""Population-based training: when it selects, what it copies, what it costs."""

import itertools
import math

import pytest

from jaxhpo.errors import Diverged, UsageError
from jaxhpo.search import Dimension, Integer, Parent, Pbt, PbtConfig, Result, Space, Uniform

SPACE = Space((Dimension("h", Uniform(0, 1)),))


def make(steps=100, anneal_start=None, initial=(), seed=0, **options):
    options = {"members": 4, "interval": 20, "explore": "none"} | options
    return Pbt(SPACE, PbtConfig(**options), steps, seed, anneal_start, initial)


def report(plan, step, losses, scores=None):
    rows = zip(plan.assignments, losses, scores or losses, strict=True)
    return tuple(Result(row.trial, step, loss, score) for row, loss, score in rows)


def drive(pbt, losses):
    """All plans, and the steps at which each ends; `losses(step)` gives the members' losses."""
    plan, step, history = pbt.first(), 0, []
    while plan is not None:
        step += plan.assignments[0].steps
        history.append((step, plan))
        plan = pbt.next(report(plan, step, losses(step)))
    return history


def copies(plan):
    """row -> parent of the trials that start from another's state."""
    rows = enumerate(plan.assignments)
    return {i: row.parent.trial for i, row in rows if row.parent and not row.carries_on}


def selection_steps(pbt):
    history = drive(pbt, lambda step: [1, 2, 3, 4])
    pairs = itertools.pairwise(history)
    return [step for (step, _), (_, plan) in pairs if copies(plan)]


def test_a_loser_becomes_a_new_trial_of_the_winner():
    pbt = make(initial=[{"h": h} for h in (0.1, 0.2, 0.3, 0.4)])
    plan = pbt.next(report(pbt.first(), 20, [3.0, 1.0, 4.0, 2.0]))
    row = plan.assignments[2]
    assert (row.trial, row.seed, row.parent) == (4, 4, Parent(1))
    assert row.point == {"h": 0.2}
    assert set(row.keep) == {"params", "moments", "step"}
    assert [plan.assignments[i].carries_on for i in (0, 1, 3)] == [True] * 3


def test_a_copy_may_take_the_weights_and_keep_its_own_point():
    pbt = make(inherit="weights", initial=[{"h": h} for h in (0.1, 0.2, 0.3, 0.4)])
    plan = pbt.next(report(pbt.first(), 20, [3.0, 1.0, 4.0, 2.0]))
    assert plan.assignments[2].parent == Parent(1)
    assert plan.assignments[2].point == {"h": 0.3}


def test_every_copy_has_an_id_never_used_before():
    history = drive(make(quantile=0.5), lambda step: [1, 2, 3, 4])
    born = [row.trial for _, plan in history for row in plan.assignments if not row.carries_on]
    assert born == list(range(len(born))) and len(born) == 4 + 4 * 2


def test_selections_come_after_the_burn_in_and_then_every_interval():
    assert selection_steps(make()) == [20, 40, 60, 80]
    assert selection_steps(make(burn_in=30)) == [30, 50, 70, 90]
    assert selection_steps(make(burn_in=5)) == [5, 25, 45, 65, 85]
    assert selection_steps(make(steps=101)) == [20, 40, 60, 80, 100]


def test_nothing_is_selected_once_the_final_decay_has_begun():
    assert selection_steps(make(anneal_start=60)) == [20, 40]
    assert selection_steps(make(anneal_start=61)) == [20, 40, 60]


def test_segments_are_never_longer_than_the_interval_and_end_at_selections():
    assert make(burn_in=50).ends == (20, 40, 50, 70, 90, 100)
    assert make(steps=95, anneal_start=45).ends == (20, 40, 60, 80, 95)


def test_only_segments_before_a_selection_are_probed():
    history = drive(make(burn_in=30, anneal_start=60), lambda step: [1, 2, 3, 4])
    probes = {step: {row.probe for row in plan.assignments} for step, plan in history}
    assert probes == {20: {0}, 30: {4}, 50: {4}, 70: {0}, 90: {0}, 100: {0}}


@pytest.mark.parametrize("options", [{}, {"anneal_start": 60}, {"burn_in": 33}, {"members": 1}])
def test_the_stated_cost_of_probes_is_what_the_plans_ask_for(options):
    pbt = make(**options)
    members = pbt.config.members
    history = drive(pbt, lambda step: list(range(members)))
    assert sum(r.probe for _, plan in history for r in plan.assignments) == pbt.extent.probed
    assert sum(plan.assignments[0].probe > 0 for _, plan in history) == pbt.selections


@pytest.mark.parametrize("fitness", ["loss", "improvement"])
def test_only_a_probing_fitness_probes(fitness):
    assert make(fitness=fitness).extent.probed == 0
    history = drive(make(fitness=fitness), lambda step: [1, 2, 3, 4])
    assert {row.probe for _, plan in history for row in plan.assignments} == {0}


def test_the_probe_score_ranks_where_probed_and_the_raw_loss_where_not():
    losses, scores = [1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0]
    for fitness, pair in (("probe", {0: 3}), ("loss", {3: 0})):
        pbt = make(fitness=fitness)
        assert copies(pbt.next(report(pbt.first(), 20, losses, scores))) == pair


def test_improvement_ranks_the_change_of_loss_per_step():
    pbt = make(fitness="improvement")
    plan = pbt.next(report(pbt.first(), 20, [9.0, 5.0, 3.0, 2.0]))
    assert copies(plan) == {}  # nothing to compare with yet
    plan = pbt.next(report(plan, 40, [8.0, 2.0, 2.9, 1.9]))  # changes: -1, -3, -0.1, -0.1
    assert copies(plan) == {3: 1}  # of the two that tie the younger loses


def test_improvement_of_a_copy_counts_from_its_parent():
    pbt = make(fitness="improvement")
    plan = pbt.next(report(pbt.first(), 20, [9.0, 9.0, 9.0, 9.0]))
    plan = pbt.next(report(plan, 40, [8.0, 5.0, 7.0, 8.9]))
    assert copies(plan) == {3: 1}
    # from 5.0 to 4.9, not from 8.9: the copy is the slowest now
    plan = pbt.next(report(plan, 60, [7.0, 2.0, 6.0, 4.9]))
    assert copies(plan) == {3: 1}


def test_a_population_without_a_finite_loss_has_diverged():
    pbt = make()
    with pytest.raises(Diverged, match="step 20"):
        pbt.next(report(pbt.first(), 20, [math.nan, math.inf, math.nan, -math.inf]))


def test_a_population_may_also_diverge_where_nothing_is_selected():
    pbt = make(anneal_start=20)
    with pytest.raises(Diverged, match="step 20"):
        pbt.next(report(pbt.first(), 20, [math.nan] * 4))


def test_a_population_whose_probes_all_diverge_has_diverged():
    pbt = make()
    with pytest.raises(Diverged, match="finite fitness at step 20"):
        pbt.next(report(pbt.first(), 20, [1.0] * 4, [math.nan] * 4))


def test_a_member_whose_raw_loss_diverged_is_no_donor_whatever_its_probe_says():
    pbt = make()
    plan = pbt.next(report(pbt.first(), 20, [math.nan, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]))
    assert copies(plan) == {0: 1}


def test_an_infinite_loss_counts_as_diverged():
    pbt = make(fitness="loss", quantile=0.01)
    plan = pbt.next(report(pbt.first(), 20, [-math.inf, 1.0, 2.0, math.inf]))
    assert copies(plan) == {0: 1, 3: 1}


def test_a_lone_member_is_neither_selected_nor_probed():
    pbt = make(members=1)
    assert pbt.selections == 0
    history = drive(pbt, lambda step: [1.0])
    assert [step for step, _ in history] == [20, 40, 60, 80, 100]
    assert {(row.trial, row.probe) for _, plan in history for row in plan.assignments} == {(0, 0)}


def test_the_first_members_are_spread_over_the_space():
    shares = sorted(int(point["h"] * 8) for point in make(members=8).initial)
    assert shares == list(range(8))


def test_given_points_come_first_and_the_rest_are_spread():
    pbt = make(initial=[{"h": 0.5}])
    assert pbt.initial[0] == {"h": 0.5} and len(pbt.initial) == 4


def test_another_seed_gives_another_population():
    assert make(seed=0).initial != make(seed=1).initial


def test_one_members_fate_changes_no_other_members_draws():
    explored = []
    for losses in ([3.0, 1.0, 4.0, 2.0], [3.0, 1.0, 4.0, 9.0]):  # row 0 copies, or row 3
        pbt = make(explore="resample", quantile=0.5)
        plan = pbt.next(report(pbt.first(), 20, losses))
        assert 2 in copies(plan) and len(copies(plan)) == 2
        explored.append(plan.assignments[2].point)
    assert explored[0] == explored[1]


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (
            lambda: Pbt(
                Space((Dimension("model.num_layers", Integer(1, 4), True),)), PbtConfig(), 9, 0
            ),
            r"model\.num_layers changes shapes",
        ),
        (lambda: Pbt(Space(()), PbtConfig(), 9, 0), "at least one dimension"),
        (lambda: make(initial=[{"h": 2.0}]), r"h=2\.0 is outside uniform\(0\.0, 1\.0\)"),
        (lambda: make(initial=[{"h": 0.5}] * 5), r"5 points for pbt\.members=4"),
        (lambda: make(steps=0), "steps=0 must be"),
        (lambda: make(seed=-1), "seed=-1 must be"),
    ],
)
def test_a_search_that_cannot_be_is_refused(build, reason):
    with pytest.raises(UsageError, match=reason):
        build()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"members": 0}, r"pbt\.members=0 must be a whole number"),
        ({"interval": 2.5}, r"pbt\.interval=2\.5 must be a whole number"),
        ({"burn_in": 0}, r"pbt\.burn_in=0 must be a whole number"),
        ({"quantile": 0.6}, r"pbt\.quantile=0\.6 must be above 0 and at most 0\.5"),
        ({"quantile": math.nan}, r"pbt\.quantile=nan"),
        ({"ttest_level": 0}, r"pbt\.ttest_level=0 must be"),
        ({"probe_share": 1.5}, r"pbt\.probe_share=1\.5"),
        ({"perturb_scale": -1}, r"pbt\.perturb_scale=-1"),
        ({"resample_probability": 2}, r"pbt\.resample_probability=2"),
        ({"perturb_factors": ()}, r"pbt\.perturb_factors=\(\) needs"),
        ({"perturb_factors": (1.0,)}, r"pbt\.perturb_factors=\(1\.0,\) must be"),
        ({"perturb_factors": (math.inf,)}, r"pbt\.perturb_factors=\(inf,\) must be"),
        ({"exploit": "roulette"}, "is none of truncation, tournament, ttest"),
        ({"explore": "guess"}, "is none of perturb, normal, resample, none"),
        ({"fitness": "luck"}, "is none of probe, loss, improvement"),
        ({"inherit": "all"}, "is none of both, weights"),
    ],
)
def test_a_wrong_option_is_refused_by_name_value_and_rule(options, reason):
    with pytest.raises(UsageError, match=reason):
        PbtConfig(**options)


@pytest.mark.parametrize(
    ("interval", "share", "steps"), [(50, 0.2, 10), (3, 0.1, 1), (50, 0.25, 12)]
)
def test_a_probe_is_a_share_of_the_interval_and_at_least_one_step(interval, share, steps):
    assert PbtConfig(interval=interval, probe_share=share).probe_steps == steps
