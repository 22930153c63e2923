"""Children of a fork: their own lengths, segments that end together, and the sources they copy."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxhpo.errors import UsageError
from jaxhpo.search.forked import Child, Forked
from jaxhpo.search.plan import KEEP_ALL, Parent, Result


def child(steps: int, start: int = 400, source: int = 0, **changes) -> Child:
    return Child(source, {"schedule.decay_steps": steps}, start, steps, seed=3, **changes)


def drive(scheduler: Forked) -> list:
    plans, plan = [], scheduler.first()
    steps = {}
    while plan is not None:
        plans.append(plan)
        report = []
        for row in plan.assignments:
            steps[row.trial] = steps.get(row.trial, 0) + row.steps
            report.append(Result(row.trial, steps[row.trial], 1.0, 1.0))
        plan = scheduler.next(tuple(report))
    return plans


@given(st.lists(st.integers(1, 700), min_size=1, max_size=6), st.integers(1, 120))
def test_every_child_makes_its_steps_and_all_end_with_the_last_segment(lengths, segment) -> None:
    scheduler = Forked(1, [child(steps) for steps in lengths], segment)
    plans = drive(scheduler)
    for place, steps in enumerate(lengths):
        rows = [plan.assignments[place] for plan in plans]
        assert sum(row.steps for row in rows) == steps and min(row.steps for row in rows) >= 1
    extent = scheduler.extent
    assert extent.steps == max(row.steps for plan in plans for row in plan.assignments)
    assert extent.trained == sum(lengths)
    if min(lengths) * segment >= max(lengths):
        assert extent.steps <= segment
    at = [400] * len(lengths)
    for plan in plans:
        assert len(set(at)) <= extent.starts
        at = [a + row.steps for a, row in zip(at, plan.assignments, strict=True)]


def test_children_copy_their_sources_once_and_then_carry_on() -> None:
    keep = ("params",)
    plans = drive(Forked(2, [child(200), child(200, source=1, keep=keep)], 100))
    first, second = plans
    assert [row.parent for row in first.assignments] == [Parent(0), Parent(1)]
    assert [row.trial for row in first.assignments] == [2, 3]
    assert [row.keep for row in first.assignments] == [KEEP_ALL, keep]
    assert all(row.carries_on and row.keep == KEEP_ALL for row in second.assignments)


def test_a_lone_child_stops_where_it_is_told_in_its_own_steps() -> None:
    plans = drive(Forked(1, [child(250)], 100, stops=(300, 430, 640, 900)))
    ends, at = [], 400
    for plan in plans:
        at += plan.assignments[0].steps
        ends.append(at)
    assert ends == [430, 530, 630, 640, 650]


def test_mistakes_are_refused() -> None:
    with pytest.raises(UsageError, match="at least one child"):
        Forked(1, [], 100)
    with pytest.raises(UsageError, match="steps=0"):
        Forked(1, [child(0)], 100)
    with pytest.raises(ValueError, match="source=1; there are 1"):
        Forked(1, [child(5, source=1)], 100)
