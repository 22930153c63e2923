"""Laws of the lineage: who descends from whom, and whose curve reads how."""

import itertools
import math

import pytest

from jaxhpo.record.history import history
from jaxhpo.report.lineage import ancestors, chain, final_results, inherited_curve, last_of, lives
from jaxhpo.report.tracing import trace


def exploits(lineage):
    return [row for row in lineage.segments if row.is_exploit]


def test_an_inherited_curve_is_its_parents_up_to_the_fork(pbt_lineage):
    forks = exploits(pbt_lineage)
    assert forks
    for fork in forks:
        steps, losses = inherited_curve(pbt_lineage, fork.trial)
        before = chain(pbt_lineage, fork.parent)
        assert before[-1].trial == fork.parent_trial
        assert before[-1].end == fork.begin
        shared = len(before)
        assert steps[:shared] == tuple(row.end for row in before)
        assert repr(losses[:shared]) == repr(tuple(row.loss for row in before))


def test_a_curve_has_no_gap_and_no_step_twice(pbt_lineage):
    for row in final_results(pbt_lineage):
        line = chain(pbt_lineage, row.position)
        assert line[0].begin == 0
        assert all(a.end == b.begin for a, b in itertools.pairwise(line))


def test_every_chain_begins_with_a_newborn(pbt_lineage, pbt_history):
    newborn = {row["trial"] for row in pbt_history.plans[0]["assignments"]}
    for trial in lives(pbt_lineage):
        assert ancestors(pbt_lineage, trial)[0] == trial
        assert ancestors(pbt_lineage, trial)[-1] in newborn


def test_a_life_records_birth_parent_points_and_losses(pbt_lineage):
    fork = exploits(pbt_lineage)[-1]
    life = lives(pbt_lineage)[fork.trial]
    assert (life.born, life.parent) == (fork.begin, fork.parent_trial)
    assert life.points[fork.begin] == fork.point
    assert fork.end in life.losses


def test_an_exploit_onto_the_same_trial_id_still_leaves_its_parents_curve(pbt_history):
    """A scheduler may put the copy under the loser's own id; its old life must not leak in."""

    def row(trial, parent):
        point = {"schedule.peak_lr": 0.1 * (trial + 1)}
        return {"trial": trial, "point": point, "parent": parent, "steps": 10, "seed": trial}

    def result(trial, step, loss):
        return {"trial": trial, "step": step, "loss": loss, "score": loss}

    log = FakeHistory(
        [[row(0, None), row(1, None)], [row(0, {"trial": 0}), row(1, {"trial": 0})]],
        [[result(0, 10, 3.0), result(1, 10, 9.0)], [result(0, 20, 2.0), result(1, 20, 2.5)]],
    )
    assert inherited_curve(trace(log), 1) == ((10, 20), (3.0, 2.5))


def test_a_restored_older_step_skips_what_came_after_it():
    rows = [
        {"trial": 0, "point": {}, "parent": None, "steps": 10, "seed": 0},
        {"trial": 0, "point": {}, "parent": {"trial": 0, "step": None}, "steps": 10, "seed": 0},
        {"trial": 1, "point": {}, "parent": {"trial": 0, "step": 10}, "steps": 10, "seed": 1},
    ]
    results = [(0, 10, 3.0), (0, 20, 8.0), (1, 20, 2.0)]
    reports = [[dict(zip(("trial", "step", "loss"), r, strict=True))] for r in results]
    lineage = trace(FakeHistory([[row] for row in rows], reports))
    assert inherited_curve(lineage, 1) == ((10, 20), (3.0, 2.0))


def test_members_are_ranked_by_score_and_nan_comes_last(pbt_lineage):
    scores = [row.score for row in final_results(pbt_lineage)]
    finite = [score for score in scores if math.isfinite(score)]
    assert len(finite) < len(scores), "the synthetic run has a broken fixed member"
    assert scores[: len(finite)] == sorted(finite)


def test_a_line_has_the_best_rank_of_its_descendants(pbt_lineage):
    descendants = {row.position: set() for row in pbt_lineage.segments}
    places = {}
    for row in final_results(pbt_lineage):
        places[row.position] = 1 + sum(
            pbt_lineage.segments[other].group == row.group for other in places
        )
        for ancestor in chain(pbt_lineage, row.position):
            descendants[ancestor.position].add(places[row.position])
    for position, found in descendants.items():
        assert pbt_lineage.ranks[position] == (min(found) if found else None)


def test_no_two_members_share_a_lane_and_nobody_changes_it(pbt_lineage):
    for plan in {row.plan for row in pbt_lineage.segments}:
        lanes = [row.lane for row in pbt_lineage.segments if row.plan == plan]
        assert len(lanes) == len(set(lanes))
    for trial in lives(pbt_lineage):
        assert len({row.lane for row in pbt_lineage.segments if row.trial == trial}) == 1


def test_a_newcomer_gets_a_free_lane_when_rows_change_places():
    rows = [
        [{"trial": t, "point": {}, "parent": None, "steps": 10} for t in (0, 1)],
        [
            {"trial": 1, "point": {}, "parent": {"trial": 1}, "steps": 10},
            {"trial": 2, "point": {}, "parent": {"trial": 1}, "steps": 10},
        ],
    ]
    results = [
        [{"trial": row["trial"], "step": 10 * (i + 1), "loss": 1.0} for row in plan]
        for i, plan in enumerate(rows)
    ]
    lanes = [(row.trial, row.lane) for row in trace(FakeHistory(rows, results)).segments]
    assert lanes == [(0, 0), (1, 1), (1, 1), (2, 0)]


def test_a_plan_without_a_report_is_not_part_of_the_lineage(make_run):
    last = {"index": 2, "assignments": [{"trial": 0, "point": {}, "parent": None, "steps": 9}]}
    run = make_run(("plan", last), rounds=2, finish=False)
    assert {row.plan for row in trace(history(run)).segments} == {0, 1}


def test_an_unknown_trial_is_refused_with_the_ones_that_exist(pbt_lineage):
    with pytest.raises(LookupError, match="trial 999 has no report; reported trials: 0, 1, 2"):
        last_of(pbt_lineage, 999)


class FakeHistory:
    """Plans and reports without a log."""

    start, finish = {}, None

    def __init__(self, plans, reports):
        self.plans = [{"index": i, "assignments": rows} for i, rows in enumerate(plans)]
        self.reports = [{"index": i, "results": rows} for i, rows in enumerate(reports)]

    def of(self, kind):
        return ()
