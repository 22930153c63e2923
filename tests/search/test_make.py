"""What a user may name, and what is refused in one line."""

import subprocess
import sys

import pytest

from jaxhpo.errors import UsageError
from jaxhpo.search import PbtConfig, SearchConfig, Space, make
from jaxhpo.search.table import COMBINATIONS, SEARCHES, combination
from jaxhpo.search.trials import Trials

TEXTS = {"x": "uniform(0, 1)", "y": "log(1e-3, 1)", "depth": "int(1, 4)"}
SPACE = Space.from_mapping(TEXTS, lambda name: name == "depth", list(TEXTS))


def made(name="asha", space=SPACE, steps=100, **options):
    return make(name, SearchConfig(**options), space, steps, 0)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"name": "ahsa"}, "search.scheduler='ahsa': no such scheduler; the nearest is 'asha'"),
        (
            {"name": "zzz"},
            "search.scheduler='zzz': no such scheduler; allowed: grid, random, sobol",
        ),
        ({"proposer": "tpee"}, "search.proposer='tpee': no such proposer; the nearest is 'tpe'"),
        ({"stopper": "halfing"}, "search.stopper='halfing': no such; the nearest is 'halving'"),
        ({"eta": 1}, "search.eta=1 must be a whole number of at least 2"),
        ({"trials": 0}, "search.trials=0 must be a whole number of at least 1"),
        ({"places": 0}, "search.places=0 must be a whole number of at least 1"),
        ({"early_share": 0.0}, "search.early_share=0.0 must be above 0"),
        ({"rank": "score"}, "search.rank='score' is none of probe, loss"),
        ({"min_steps": 101}, "search.min_steps=101 is longer than steps=100: the budget is below"),
        ({"name": "hyperband", "min_steps": 101}, "the budget is below one rung"),
        ({"name": "median", "min_steps": 101}, "the budget is below one rung"),
        ({"name": "two-stage", "keep": 17}, "search.keep=17 keep more trials than there are: 16"),
        ({"name": "two-stage", "continued": 12}, "and search.continued=12 keep more trials"),
        ({"name": "two-stage", "early_share": 1.0}, "of steps=100 is no first stage"),
        ({"space": Space(())}, "space: asha needs at least one dimension"),
        ({"name": "pbt"}, "space: depth changes shapes"),
        ({"name": "pb2"}, "space: depth changes shapes"),
        ({"name": "pbt", "stopper": "asha"}, "search.stopper='asha' has no meaning for pbt"),
        ({"name": "wsd-forks", "stopper": "asha"}, "has no meaning for wsd-forks"),
        ({"name": "grid", "levels": 400}, "makes a grid of 400 x 400 x 4 = 640000 points"),
        ({"constraints": ("x > 2",)}, "none of 10000 random points satisfies x > 2"),
        ({"name": "sobol", "constraints": ("x > 2",)}, "none of 10000 points in a row satisfies"),
        ({"name": "grid", "constraints": ("x > 2",)}, "no point of the grid satisfies x > 2"),
        ({"constraints": ("z > 2",)}, "unknown dimension 'z'"),
        ({"name": "sobol", "storage": "sqlite:///x"}, "only Optuna's samplers share a study"),
        ({"name": "cmaes", "storage": "sqlite:///x"}, "unpickles its state"),
    ],
)
def test_a_mistake_is_refused_in_one_line(options, reason):
    with pytest.raises(UsageError) as error:
        made(**options).first()
    assert reason in str(error.value) and "\n" not in str(error.value)


def test_the_names_that_are_offered_can_be_made():
    traced = Space.from_mapping({"x": "uniform(0, 1)"}, lambda name: False, ["x"])
    for name in SEARCHES:
        assert made(name, traced).first().assignments


def test_proposers_and_stoppers_combine_under_any_name():
    config = SearchConfig(proposer="sobol", stopper="median")
    assert {combination(name, config) for name in COMBINATIONS} == {("sobol", "median")}
    assert combination("gp", SearchConfig()) == ("gp", "none")
    assert combination("bohb", SearchConfig()) == ("kde", "hyperband")


def test_a_proposer_that_learns_trains_in_rounds_unless_told():
    assert made("tpe", trials=16).extent.rows == 2
    assert made("tpe", trials=16, places=16).extent.rows == 16
    assert made("random", trials=16).extent.rows == 16


def test_points_that_depend_on_no_report_are_foreseen():
    for name in ("grid", "random", "sobol", "halving", "asha", "hyperband", "median"):
        foreseen = made(name).foreseen
        assert foreseen is not None and {p["depth"] for p in foreseen} <= {1, 2, 3, 4}
    assert made("tpe").foreseen is None and made("bohb").foreseen is None


def test_a_grid_has_every_combination_once():
    points = made("grid", levels=3).foreseen
    assert len(points) == 3 * 3 * 3 and len({tuple(p.values()) for p in points}) == 27
    assert {p["x"] for p in points} == {0.0, 0.5, 1.0}
    texts = {"kind": "choice(a, b)", "x": "uniform(0, 1) if kind == a", "n": "int(1, 2)"}
    conditional = Space.from_mapping(texts, lambda name: False, list(texts))
    assert len(made("grid", conditional).foreseen) == 2 * (3 + 1)


def test_sobol_points_are_scipys_and_spread():
    qmc = pytest.importorskip("scipy.stats.qmc")
    import numpy as np

    traced = Space.from_mapping({"x": "uniform(0, 1)", "y": "uniform(0, 1)"}, lambda n: False, "xy")
    points = np.array([list(p.values()) for p in made("sobol", traced, trials=64).foreseen])
    theirs = qmc.Sobol(2, rng=np.random.default_rng(0)).random_base2(6)
    np.testing.assert_array_equal(points, theirs)
    for column in points.T:
        assert sorted((column * 64).astype(int)) == list(range(64))


def test_a_search_takes_its_members_from_pbts_config():
    traced = Space.from_mapping({"x": "uniform(0, 1)"}, lambda name: False, ["x"])
    scheduler = make("pb2", SearchConfig(), traced, 100, 0, pbt=PbtConfig(members=5))
    assert scheduler.extent.rows == 5 and not isinstance(scheduler, Trials)


def test_optuna_is_imported_by_those_who_need_it_alone():
    code = (
        "import sys; from jaxhpo.search import SearchConfig, Space, make;"
        "s = Space.from_mapping({'x': 'uniform(0, 1)'}, lambda n: False, ['x']);"
        "[make(n, SearchConfig(), s, 90, 0).first() for n in ('asha', 'grid', 'bohb', 'pb2')];"
        "print([m for m in ('optuna', 'jax', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
