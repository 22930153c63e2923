"""Laws of every scheduler in the table, driven by a toy engine on the host."""

import math
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxhpo.search import (
    SCHEDULERS,
    Assignment,
    Fixed,
    Parent,
    Pbt,
    PbtConfig,
    Replay,
    Result,
    Scheduler,
    SearchConfig,
    Space,
    Together,
    beside_fixed,
    make,
)
from tests.contracts.toy import SPACE, STEPS, ToyEngine, drive


def points(count: int) -> list:
    return [SPACE.decode([(i + 0.5) / count] * 4) for i in range(count)]


def pbt(members: int, seed: int, **options) -> Pbt:
    config = PbtConfig(members=members, interval=30, **options)
    return Pbt(SPACE, config, STEPS, seed, anneal_start=200)


def replay(members: int, seed: int) -> Replay:
    rows = [(20 * i, point) for i, point in enumerate(points(members))]
    return Replay(rows, STEPS, 30, seed)


def search(name: str, **options) -> Callable[[int, int], Scheduler]:
    """A search of so many trials; in the name, what follows the first word only tells them apart"""

    def made(trials: int, seed: int) -> Scheduler:
        config = SearchConfig(trials=trials, keep=max(1, trials // 3), levels=2, **options)
        pbt_config = PbtConfig(members=trials, interval=30)
        return make(name, config, SPACE, STEPS, seed, pbt=pbt_config, anneal_start=200)

    return made


# name -> a scheduler of so many members (replay: that many changes of its one row)
POPULATIONS: dict[str, Callable[[int, int], Scheduler]] = {
    "fixed": lambda members, seed: Fixed(points(members), STEPS, 40),
    "pbt": pbt,
    "pbt tournament": lambda n, seed: pbt(n, seed, exploit="tournament", explore="normal"),
    "pbt ttest": lambda n, seed: pbt(n, seed, exploit="ttest", explore="resample"),
    "pbt improvement": lambda n, seed: pbt(n, seed, fitness="improvement", burn_in=70),
    "pbt weights": lambda n, seed: pbt(n, seed, inherit="weights", explore="none", quantile=0.5),
    "pb2": search("pb2"),
    "replay": replay,
    "together": lambda members, seed: beside_fixed(pbt(members, seed, burn_in=7)),
    "together twice": lambda n, seed: Together(
        {name: pbt(n, seed, exploit="tournament", fitness="loss") for name in "ab"}
    ),
    "together out of step": lambda members, seed: Together(
        {"a": pbt(members, seed), "b": Fixed(points(2), STEPS, 100), "c": replay(3, seed)}
    ),
}
# name -> a search of so many trials (a grid has its own number, Hyperband makes it from this one)
SEARCHES: dict[str, Callable[[int, int], Scheduler]] = {
    "grid": search("grid"),
    "grid in three places": search("grid", places=3),
    "grid hyperband": search("grid", stopper="hyperband", min_steps=20),
    "random": search("random", segment=40),
    "sobol": search("sobol", places=5),
    "halving": search("halving"),
    "halving in two places": search("halving", places=2, rank="loss"),
    "halving sobol": search("halving", proposer="sobol", min_steps=7, eta=2),
    "asha": search("asha"),
    "asha in four places": search("asha", places=4, min_steps=11),
    "asha stopping": search("asha", asynchrony="stop", places=4),
    "asha grid": search("asha", proposer="grid", places=6),
    "hyperband": search("hyperband"),
    "hyperband passes": search("hyperband", places=3, passes=2, brackets=2, min_steps=20, eta=2),
    "median": search("median"),
    "median in four places": search("median", places=4, proposer="sobol", min_steps=50),
    "two-stage": search("two-stage"),
    "two-stage random": search("two-stage", proposer="random", places=4),
    "bohb": search("bohb"),
    "bohb asha": search("bohb", stopper="asha", places=3),
    "bayes": search("bayes", proposer="nsgaii"),
    "tpe": search("tpe", segment=300),
    "tpe asha": search("tpe", stopper="asha"),
    "wsd-forks": search("wsd-forks"),
    "wsd-forks in two places": search("wsd-forks", places=2, forks=7, decay_share=0.3),
}
MAKERS = POPULATIONS | SEARCHES
makers = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
populations = pytest.mark.parametrize("make", POPULATIONS.values(), ids=POPULATIONS)
searches = pytest.mark.parametrize("make", SEARCHES.values(), ids=SEARCHES)


def test_every_scheduler_of_the_table_is_driven():
    assert {name.split()[0] for name in MAKERS} == set(SCHEDULERS)
    for name, maker in MAKERS.items():
        assert type(maker(3, 0)) is SCHEDULERS[name.split()[0]]


@makers
@pytest.mark.parametrize("members", [1, 2, 3, 4, 5, 8, 17, 64])
def test_plans_are_valid_and_inside_the_space(make, members):
    drive(make(members, 0))


@populations
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


@populations
def test_a_newborn_has_no_parent_and_the_rest_carry_on_or_are_born_again(make):
    history = drive(make(8, 0))
    assert all(row.parent is None for row in history[0][0].assignments)
    for plan, _ in history[1:]:
        assert all(isinstance(row.parent, Parent) for row in plan.assignments)


@searches
@pytest.mark.parametrize("members", [1, 4, 9])
def test_a_search_ends_with_a_full_trial(make, members):
    history = drive(make(members, 3))
    assert any(r.step == STEPS and math.isfinite(r.loss) for _, report in history for r in report)


@searches
def test_a_diverged_trial_of_a_search_never_has_another_row(make):
    diverged: set[int] = set()
    for plan, report in drive(make(20, 1)):
        rows = {row.trial for row in plan.assignments} | set(plan.paused)
        assert not rows & diverged
        diverged |= {result.trial for result in report if math.isnan(result.loss)}
    assert diverged


@searches
def test_a_place_is_never_empty_while_there_are_trials_to_start(make):
    scheduler = make(20, 1)
    history = drive(scheduler)
    born = [sum(row.parent is None for row in plan.assignments) for plan, _ in history]
    for round_, (plan, _) in enumerate(history):
        if sum(born[round_ + 1 :]):
            assert len(plan.assignments) == scheduler.extent.rows


@searches
def test_trials_of_a_search_are_numbered_in_order_of_birth(make):
    seen: list[int] = []
    for plan, _ in drive(make(20, 1)):
        fresh = [row.trial for row in plan.assignments if row.trial not in seen]
        assert sorted(fresh) == list(range(len(seen), len(seen) + len(fresh)))
        seen += fresh


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


DIMENSIONS = (
    "uniform(0, 1)",
    "log(1e-3, 1)",
    "normal(0.5, 0.1)",
    "normal(0, 1, 0, 2)",
    "int(1, 9)",
    "logint(1, 64)",
    "choice(a, b, c)",
    "choice(8, 16)",
)
CONDITIONS = ("", " if kind in (a)", " if kind != b and size > 4", " if x0 <= 0.5")
NAMES = ("random", "grid", "sobol", "kde", "tpe")
STOPS = ("none", "halving", "asha", "hyperband", "median", "two-stage")


class AnySpace(ToyEngine):
    def result(self, row: Assignment) -> Result:
        step = self.steps[row.trial]
        diverges = row.trial % 7 == 5
        loss = math.nan if diverges else self.space.encode(row.point).sum() + 10 / step
        return Result(row.trial, step, loss, loss)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    texts=st.lists(st.tuples(st.sampled_from(DIMENSIONS), st.sampled_from(CONDITIONS)), max_size=4),
    constraints=st.sets(st.sampled_from(["size <= 7", "x0 + size / 9 <= 1.5", "kind != c"])),
    proposer=st.sampled_from(NAMES),
    stopper=st.sampled_from(STOPS),
    trials=st.integers(6, 20),
    places=st.none() | st.integers(1, 9),
    seed=st.integers(0, 2**40),
)
def test_any_mixture_of_dimensions_is_searched_by_any_combination(
    texts, constraints, proposer, stopper, trials, places, seed
):
    named = {f"d{i}": text + when for i, (text, when) in enumerate(texts)}
    named |= {"kind": "choice(a, b, c)", "size": "int(1, 9)", "x0": "uniform(0, 1)"}
    static = lambda name: name in ("kind", "d0")
    space = Space.from_mapping(named, static, list(named), sorted(constraints))
    config = SearchConfig(
        proposer=proposer, stopper=stopper, trials=trials, places=places, levels=2, keep=2
    )
    scheduler = make("random", config, space, STEPS, seed)
    history = drive(scheduler, engine=AnySpace(space=space))
    again = make("random", config, space, STEPS, seed)
    assert drive(again, history, engine=AnySpace(space=space)) == history
    extent = scheduler.extent
    assert max(len(plan.assignments) + len(plan.paused) for plan, _ in history) <= extent.held
    assert sum(row.steps for plan, _ in history for row in plan.assignments) <= extent.trained
