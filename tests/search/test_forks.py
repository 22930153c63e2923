"""WSD forks: one trunk, and decays that continue it from several points."""

import pytest

from jaxhpo.errors import UsageError
from jaxhpo.search import Parent, SearchConfig, Space, make
from tests.contracts.toy import Scored, drive

EMPTY = Space(())
LOSS = lambda row, step: 1 / step


def forked(space=EMPTY, steps=600, **options):
    config = SearchConfig(**options)
    scheduler = make("wsd-forks", config, space, steps, 0)
    return scheduler, drive(scheduler, engine=Scored(LOSS, steps))


@pytest.mark.parametrize("places", [None, 2, 1])
def test_every_fork_starts_where_its_decay_does_and_ends_at_its_budget(places):
    scheduler, history = forked(forks=3, decay_share=0.2, places=places)
    ends: dict[int, int] = {}
    starts: dict[int, int] = {}
    points, seeds = {}, {}
    for plan, report in history:
        for row in plan.assignments:
            if row.parent is not None and row.parent.trial != row.trial:
                assert row.parent == Parent(0)
                starts[row.trial] = ends[0]
            points[row.trial], seeds[row.trial] = row.point, row.seed
        ends |= {result.trial: result.step for result in report}
    assert starts == {trial: start for trial, start in zip((1, 2, 3), (160, 320, 480), strict=True)}
    assert [ends[trial] for trial in range(4)] == [480, 200, 400, 600]
    for trial in (1, 2, 3):
        assert points[trial]["schedule.decay_start"] == starts[trial]
        assert points[trial]["schedule.decay_steps"] == ends[trial] - starts[trial]
        assert seeds[trial] == seeds[0], "the decay continues the trunk's data and randomness"
    assert points[0]["schedule.decay_start"] == 600, "the trunk never decays"
    spent = sum(row.steps for plan, _ in history for row in plan.assignments)
    assert spent == 480 + 40 + 80 + 120 == scheduler.extent.trained


def test_the_trunk_goes_on_in_the_plan_that_forks_it():
    _, history = forked(forks=3)
    together = [
        {row.trial for row in plan.assignments}
        for plan, _ in history
        if any(row.parent == Parent(0) and row.trial != 0 for row in plan.assignments)
    ]
    assert together[:2] == [{0, 1}, {0, 2}]


def test_each_point_of_a_space_is_a_trunk_of_its_own():
    space = Space.from_mapping({"lr": "log(1e-4, 1e-1)"}, lambda name: False, ["lr"])
    _, history = forked(space, trials=3, forks=2)
    rates: dict[int, float] = {}
    for plan, _ in history:
        for row in plan.assignments:
            if row.parent is not None and not row.carries_on:
                assert row.point["lr"] == rates[row.parent.trial]
            rates[row.trial] = row.point["lr"]
    assert len(rates) == 3 + 3 * 2 and len(set(rates.values())) == 3


def test_a_dimension_that_the_forks_set_is_refused():
    names = ["schedule.decay_start"]
    space = Space.from_mapping({names[0]: "uniform(1, 9)"}, lambda name: False, names)
    with pytest.raises(UsageError, match=r"schedule\.decay_start is set by wsd-forks"):
        forked(space)


def test_forks_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match=r"search\.forks=40 .* do not fit into steps=30"):
        forked(steps=30, forks=40)
    names = ["schedule.warmup_steps"]
    space = Space.from_mapping({names[0]: "uniform(1, 900)"}, lambda name: False, names)
    with pytest.raises(UsageError, match=r"warmup_steps=uniform\(1\.0, 900\.0\) may be longer"):
        forked(space)
