"""Schedulers side by side, and fixed points."""

from dataclasses import replace

import pytest

from jaxhpo.errors import UsageError
from jaxhpo.search import (
    Dimension,
    Fixed,
    Parent,
    Pbt,
    PbtConfig,
    Result,
    Space,
    Together,
    Uniform,
    beside_fixed,
)

SPACE = Space((Dimension("h", Uniform(0, 1)),))
POINTS = [{"h": 0.1}, {"h": 0.2}]


def pbt(**options) -> Pbt:
    return Pbt(SPACE, PbtConfig(members=4, interval=20, **options), 100, 7)


def drive(scheduler):
    """Plans; a loss is a function of the point and the seed, so that ids do not matter."""
    plans, steps, plan = [], {}, scheduler.first()
    while plan is not None:
        plans.append(plan)
        report = []
        for row in plan.assignments:
            steps[row.trial] = (steps[row.parent.trial] if row.parent else 0) + row.steps
            loss = row.point["h"] + row.seed / 100
            report.append(Result(row.trial, steps[row.trial], loss, loss))
        plan = scheduler.next(tuple(report))
    return plans


def test_a_part_trains_exactly_as_it_would_alone():
    together = drive(Together({"fixed": Fixed(POINTS, 100, 20), "pbt": pbt()}))
    alone = drive(pbt())
    assert len(together) == len(alone)
    names: dict[int, int] = {}
    for joint, plan in zip(together, alone, strict=True):
        mine = [row for row in joint.assignments if row.group == "pbt"]
        for row, own in zip(mine, plan.assignments, strict=True):
            assert names.setdefault(row.trial, own.trial) == own.trial
            parent = row.parent and Parent(names[row.parent.trial], row.parent.step)
            assert replace(row, trial=own.trial, parent=parent, group="") == own
    assert any(row.parent and not row.carries_on for p in alone for row in p.assignments)


def test_fixed_trials_beside_pbt_are_its_initial_trials_with_the_same_seeds():
    scheduler = pbt(burn_in=33)
    plans = drive(beside_fixed(scheduler))
    rows = {g: [r for r in plans[0].assignments if r.group == g] for g in ("pbt", "fixed")}
    assert [(r.point, r.seed, r.steps) for r in rows["pbt"]] == [
        (r.point, r.seed, r.steps) for r in rows["fixed"]
    ]
    for plan in plans:
        assert len({row.steps for row in plan.assignments}) == 1
        fixed = [row for row in plan.assignments if row.group == "fixed"]
        assert [row.point for row in fixed] == list(scheduler.initial)
        assert {row.probe for row in fixed} == {0}


def test_a_part_that_has_ended_leaves_no_rows():
    parts = {"short": Fixed(POINTS, 20, 10), "long": Fixed(POINTS, 40, 10)}
    groups = [{row.group for row in plan.assignments} for plan in drive(Together(parts))]
    assert groups == [{"short", "long"}] * 2 + [{"long"}] * 2


def test_parts_never_share_an_id():
    together = Together({"a": pbt(), "b": pbt()})
    owners: dict[int, str] = {}
    for plan in drive(together):
        for row in plan.assignments:
            assert owners.setdefault(row.trial, row.group) == row.group


def test_fixed_points_are_trained_in_full_and_never_copied():
    plans = drive(Fixed(POINTS, 25, 10))
    assert [row.steps for plan in plans for row in plan.assignments] == [10, 10, 10, 10, 5, 5]
    assert all(row.carries_on for plan in plans[1:] for row in plan.assignments)
    assert [row.point for row in plans[-1].assignments] == POINTS


def test_fixed_points_take_given_seeds_and_ends():
    plans = drive(Fixed(POINTS, 25, (7, 25), seeds=(5, 6)))
    assert [row.seed for row in plans[0].assignments] == [5, 6]
    assert [plan.assignments[0].steps for plan in plans] == [7, 18]


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda: Fixed([], 10, 5), "at least one"),
        (lambda: Fixed(POINTS, 0, 5), "steps=0 must be"),
        (lambda: Fixed(POINTS, 10, 0), "segment=0 must be"),
        (lambda: Fixed(POINTS, 10, (5, 9)), "must end at steps=10"),
        (lambda: Fixed(POINTS, 10, 5, seeds=(1,)), "1 for 2 points"),
    ],
)
def test_fixed_points_that_cannot_be_trained_are_refused(build, reason):
    with pytest.raises(UsageError, match=reason):
        build()
