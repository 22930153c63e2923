"""Laws of every scheduler in the table, driven by a toy engine on the host."""

import itertools
import math
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxhpo.search import (
    SCHEDULERS,
    Fixed,
    Parent,
    Pbt,
    PbtConfig,
    Plan,
    Replay,
    Report,
    Result,
    Scheduler,
    Space,
    Together,
    beside_fixed,
)

TEXTS = {
    "lr": "log(1e-4, 1e-1)",
    "dropout": "uniform(0, 0.3)",
    "warmup": "int(1, 40)",
    "kind": "choice(cosine, wsd, 3)",
}
SPACE = Space.from_mapping(TEXTS, lambda name: False, list(TEXTS))
STEPS = 230


def points(count: int) -> list:
    return [SPACE.decode([(i + 0.5) / count] * 4) for i in range(count)]


def pbt(members: int, seed: int, **options) -> Pbt:
    config = PbtConfig(members=members, interval=30, **options)
    return Pbt(SPACE, config, STEPS, seed, anneal_start=200)


def replay(members: int, seed: int) -> Replay:
    rows = [(20 * i, point) for i, point in enumerate(points(members))]
    return Replay(rows, STEPS, 30, seed)


# name -> a scheduler of `members` rows (replay: that many changes of its one row)
MAKERS: dict[str, Callable[[int, int], Scheduler]] = {
    "fixed": lambda members, seed: Fixed(points(members), STEPS, 40),
    "pbt": pbt,
    "pbt tournament": lambda n, seed: pbt(n, seed, exploit="tournament", explore="normal"),
    "pbt ttest": lambda n, seed: pbt(n, seed, exploit="ttest", explore="resample"),
    "pbt improvement": lambda n, seed: pbt(n, seed, fitness="improvement", burn_in=70),
    "pbt weights": lambda n, seed: pbt(n, seed, inherit="weights", explore="none", quantile=0.5),
    "replay": replay,
    "together": lambda members, seed: beside_fixed(pbt(members, seed, burn_in=7)),
    "together twice": lambda n, seed: Together(
        {name: pbt(n, seed, exploit="tournament", fitness="loss") for name in "ab"}
    ),
    "together out of step": lambda members, seed: Together(
        {"a": pbt(members, seed), "b": Fixed(points(2), STEPS, 100), "c": replay(3, seed)}
    ),
}
makers = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


class ToyEngine:
    """Keeps each trial's step and checks every plan; trials 5, 12, ... diverge. Never all do."""

    def __init__(self, noise: int = 0) -> None:
        self.steps: dict[int, int] = {}
        self.rows: tuple[int, ...] = ()
        self.noise = noise

    def run(self, plan: Plan) -> Report:
        rows = plan.assignments
        trials = [row.trial for row in rows]
        assert rows and len(set(trials)) == len(trials), "a trial has one place"
        before, report = dict(self.steps), []
        for row in rows:
            if row.parent is None or row.parent.trial != row.trial:
                assert row.trial not in before, "a new life has a new id"
            if row.parent is not None:
                assert row.parent.trial in self.rows, "the parent's state is still there"
            start = before[row.parent.trial] if row.parent is not None else 0
            assert row.steps >= 1 and row.probe >= 0
            self.steps[row.trial] = start + row.steps
            assert self.steps[row.trial] <= STEPS, "within the budget"
            SPACE.check(row.point)
            report.append(self.result(row))
        self.rows = tuple(trials)
        return tuple(report)

    def result(self, row) -> Result:
        step = self.steps[row.trial]
        if row.trial % 7 == 5:
            return Result(row.trial, step, math.nan, math.nan, (math.nan,) * 4)
        best = -3 + (self.noise % 3) / 2
        loss = abs(math.log10(row.point["lr"]) - best) + row.point["dropout"] + 10 / step
        wobble = ((row.seed * 7919 + step + self.noise) % 13) / 100
        samples = tuple(loss + wobble * i for i in range(4))
        return Result(row.trial, step, sum(samples) / 4, sum(samples) / 4, samples)


def drive(scheduler: Scheduler, log: Sequence[tuple[Plan, Report]] = (), noise: int = 0) -> list:
    """The whole history; a log is replayed first, as a resumed run does."""
    engine, history, plan = ToyEngine(noise), [], scheduler.first()
    for round_ in itertools.count():
        assert round_ < 200, "it ends"
        report = engine.run(plan)
        if round_ < len(log):
            assert (plan, report) == log[round_], "the log and the replay differ"
        history.append((plan, report))
        plan = scheduler.next(report)
        if plan is None:
            return history


def test_every_scheduler_of_the_table_is_driven():
    assert {name.split()[0] for name in MAKERS} == set(SCHEDULERS)
    for name, make in MAKERS.items():
        assert type(make(3, 0)) is SCHEDULERS[name.split()[0]]


@makers
@pytest.mark.parametrize("members", [1, 2, 3, 4, 5, 8, 17, 64])
def test_plans_are_valid_and_inside_the_space(make, members):
    drive(make(members, 0))


@makers
def test_the_budget_is_spent_exactly(make):
    history = drive(make(8, 1))
    rows = len(history[0][0].assignments)
    assert sum(row.steps for plan, _ in history for row in plan.assignments) == rows * STEPS
    assert {result.step for result in history[-1][1]} == {STEPS}


@makers
@pytest.mark.parametrize("members", [1, 3, 8])
def test_no_plan_asks_for_more_than_the_extent(make, members):
    extent, history = make(members, 1).extent, drive(make(members, 1))
    rows = [row for plan, _ in history for row in plan.assignments]
    assert max(len(plan.assignments) for plan, _ in history) <= extent.rows
    assert max(len(plan.assignments) + len(plan.paused) for plan, _ in history) <= extent.held
    assert max(row.steps for row in rows) <= extent.steps
    assert max(row.probe for row in rows) <= extent.probe
    assert sum(row.steps for row in rows) <= extent.trained
    assert sum(row.probe for row in rows) <= extent.probed
    for plan, report in history:
        ends = {result.trial: result.step for result in report}
        assert len({ends[row.trial] - row.steps for row in plan.assignments}) <= extent.starts


@makers
def test_foreseen_points_are_those_of_the_trials(make):
    foreseen, seen = make(8, 1).foreseen, {}
    for plan, _ in drive(make(8, 1)):
        for row in plan.assignments:
            seen.setdefault(row.trial, row.point)
    assert foreseen is None or list(foreseen) == [seen[trial] for trial in sorted(seen)]


@makers
def test_a_replayed_log_gives_the_same_plans(make):
    history = drive(make(8, 2))
    assert drive(make(8, 2), history) == history


@makers
def test_a_log_cut_anywhere_gives_the_same_plans(make):
    history = drive(make(8, 2))
    for length in range(len(history)):
        assert drive(make(8, 2), history[:length]) == history


@makers
def test_starting_over_forgets_everything(make):
    scheduler = make(8, 2)
    drive(scheduler, noise=1)
    assert drive(scheduler) == drive(make(8, 2))


@makers
def test_a_diverged_trial_is_never_copied(make):
    for noise in range(5):
        diverged: set[int] = set()
        for plan, report in drive(make(8, 3), noise=noise):
            for row in plan.assignments:
                if row.parent is not None and row.parent.trial != row.trial:
                    assert row.parent.trial not in diverged
            diverged = {result.trial for result in report if math.isnan(result.loss)}


@makers
def test_plans_do_not_depend_on_the_order_of_the_report(make):
    ordered, shuffled = make(8, 4), make(8, 4)
    engine, plan, other = ToyEngine(), ordered.first(), shuffled.first()
    while plan is not None:
        assert plan == other
        report = engine.run(plan)
        plan, other = ordered.next(report), shuffled.next(tuple(reversed(report)))
    assert other is None


@makers
def test_a_report_on_other_trials_is_refused(make):
    scheduler = make(3, 0)
    report = ToyEngine().run(scheduler.first())
    with pytest.raises(ValueError, match="trial"):
        scheduler.next((*report[:-1], Result(99, 30, 1.0, 1.0)))


@makers
def test_a_newborn_has_no_parent_and_the_rest_carry_on_or_are_born_again(make):
    history = drive(make(8, 0))
    assert all(row.parent is None for row in history[0][0].assignments)
    for plan, _ in history[1:]:
        assert all(isinstance(row.parent, Parent) for row in plan.assignments)


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from([name for name in MAKERS if name.startswith("pbt")]),
    members=st.integers(1, 64),
    seed=st.integers(0, 2**40),
    noise=st.integers(0, 12),
)
def test_any_population_stays_inside_the_space(name, members, seed, noise):
    history = drive(MAKERS[name](members, seed), noise=noise)
    assert all(len(plan.assignments) == members for plan, _ in history)
