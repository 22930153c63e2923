"""The schedule that a run discovered, read off its history and trained again."""

import pytest

from jaxhpo.errors import UsageError
from jaxhpo.search import (
    Assignment,
    Dimension,
    Parent,
    Pbt,
    PbtConfig,
    Plan,
    Replay,
    Result,
    Space,
    Uniform,
    beside_fixed,
    lineage_points,
)

A, B, C = {"h": 0.1}, {"h": 0.2}, {"h": 0.3}


def history_of(*rounds):
    """Rounds of (trial, point, parent, steps, end step)."""
    return [
        (
            Plan(tuple(Assignment(t, point, parent, n, t) for t, point, parent, n, _ in rows)),
            tuple(Result(t, end, 1.0, 1.0) for t, _, _, _, end in rows),
        )
        for rows in rounds
    ]


HISTORY = history_of(
    [(0, A, None, 10, 10), (1, B, None, 10, 10)],
    [(0, A, Parent(0), 10, 20), (2, C, Parent(0), 10, 20)],
    [(3, A, Parent(2), 10, 30), (2, C, Parent(2), 10, 30)],
)


def drive(replay):
    plan, step, rows = replay.first(), 0, []
    while plan is not None:
        (row,) = plan.assignments
        rows.append((step, row))
        step += row.steps
        plan = replay.next((Result(0, step, 1.0, 1.0),))
    return rows, step


def test_a_lineage_follows_parents_back_to_the_newborn():
    assert lineage_points(HISTORY, 3) == ((0, A), (10, C), (20, A))
    assert lineage_points(HISTORY, 2) == ((0, A), (10, C))
    assert lineage_points(HISTORY, 0) == ((0, A),)


def test_a_copy_of_an_older_step_inherits_only_what_came_before_it():
    history = history_of(
        [(0, A, None, 10, 10)],
        [(1, B, Parent(0), 10, 20)],
        [(1, A, Parent(1), 10, 30)],
        [(2, C, Parent(1, 20), 5, 25)],
        [(3, A, Parent(0, 5), 5, 10)],
    )
    assert lineage_points(history, 2) == ((0, A), (10, B), (20, C))
    assert lineage_points(history, 3) == ((0, A),)


def test_an_unknown_trial_names_those_there_are():
    with pytest.raises(LookupError, match=r"no trial 9 .*\[0, 1, 2, 3\]"):
        lineage_points(HISTORY, 9)


def test_a_replay_holds_each_point_from_its_step():
    rows, step = drive(Replay([(0, A), (10, C), (25, B)], 40, 10, seed=5))
    assert step == 40
    assert [(start, row.point) for start, row in rows] == [
        (0, A), (10, C), (20, C), (25, B), (35, B),
    ]  # fmt: skip
    assert rows[0][1].parent is None and all(row.carries_on for _, row in rows[1:])
    assert {row.seed for _, row in rows} == {5} and {row.trial for _, row in rows} == {0}


def test_changes_at_or_after_the_end_are_left_out():
    rows, step = drive(Replay([(0, A), (20, B)], 20, 50, seed=0))
    assert step == 20 and [row.point for _, row in rows] == [A]


def test_the_schedule_of_a_replay_is_the_one_replayed():
    space = Space((Dimension("h", Uniform(0, 1)),))
    scheduler = beside_fixed(Pbt(space, PbtConfig(members=4, interval=10), 100, 3))
    history, steps, plan = [], {}, scheduler.first()
    while plan is not None:
        for row in plan.assignments:
            steps[row.trial] = (steps[row.parent.trial] if row.parent else 0) + row.steps
        report = tuple(
            Result(r.trial, steps[r.trial], r.point["h"], r.point["h"]) for r in plan.assignments
        )
        history.append((plan, report))
        plan = scheduler.next(report)
    deepest = max(row.trial for row in history[-1][0].assignments if row.group == "pbt")
    found = lineage_points(history, deepest)
    assert len(found) > 2
    replayed = []
    replay = Replay(found, 100, 10, seed=0)
    plan, step = replay.first(), 0
    while plan is not None:
        step += plan.assignments[0].steps
        report = (Result(0, step, 1.0, 1.0),)
        replayed.append((plan, report))
        plan = replay.next(report)
    assert lineage_points(replayed, 0) == found


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([], r"from step 0, got steps \[\]"),
        ([(5, A)], r"from step 0, got steps \[5\]"),
        ([(0, A), (5, B), (5, C)], "two points hold from the same step"),
        ([(0, A), (5, {"g": 1.0})], "g, h is not given at every step"),
    ],
)
def test_a_schedule_that_cannot_be_replayed_is_refused(rows, reason):
    with pytest.raises(UsageError, match=reason):
        Replay(rows, 10, 5, 0)
