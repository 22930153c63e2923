"""Optuna's samplers as proposers: by name, in batches, replayed by asking and telling again."""

import math

import numpy as np
import optuna
import pytest

from jaxhpo.errors import UsageError
from jaxhpo.search import SearchConfig, Space, make
from jaxhpo.search.bayes import Bayes
from jaxhpo.search.kde import Kde
from jaxhpo.search.samplers import parameters
from tests.contracts.toy import Scored, drive

TEXTS = {"lr": "log(1e-6, 1e-3)", "batch": "choice(8, 16, 32)", "epochs": "int(1, 5)"}
SPACE = Space.from_mapping(TEXTS, lambda name: False, list(TEXTS))
EVERYTHING = {
    "a": "uniform(-1, 1)",
    "b": "logint(1, 100)",
    "c": "normal(0, 1)",
    "kind": "choice(x, y)",
    "d": "log(1e-3, 1) if kind == x",
}
MIXED = Space.from_mapping(EVERYTHING, lambda name: name == "b", list(EVERYTHING), ["a < c + 1"])


def smoke(point) -> float:
    apart = (math.log10(point["lr"]) + 4.5) ** 2 + 0.05 * abs(point["epochs"] - 3)
    return apart + (0.1 if point["batch"] != 16 else 0.0)


def best(history) -> float:
    return min(r.score for _, report in history for r in report if math.isfinite(r.score))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_tpe_finds_the_optimum_and_is_optunas_own(seed):
    config = SearchConfig(trials=50, places=1)
    scheduler = make("tpe", config, SPACE, 1, seed)
    history = drive(scheduler, engine=Scored(lambda row, step: smoke(row.point), 1))
    assert best(history) < 0.01

    def objective(trial):
        point = {"lr": trial.suggest_float("lr", 1e-6, 1e-3, log=True)}
        point |= {"batch": trial.suggest_categorical("batch", (8, 16, 32))}
        return smoke(point | {"epochs": trial.suggest_int("epochs", 1, 5)})

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.TPESampler(seed=seed)
    study = optuna.create_study(sampler=sampler)
    study.optimize(objective, n_trials=50)
    assert [row.point for plan, _ in history for row in plan.assignments] == [
        trial.params for trial in study.trials
    ]


@pytest.mark.parametrize("name", ["tpe", "random", "qmc", "nsgaii", "nsgaiii"])
def test_any_sampler_proposes_points_of_any_space(name):
    proposer = Bayes(name, MIXED, 0, 20, 10)
    for trial in range(20):
        MIXED.check(proposer.propose(trial))
        proposer.report(trial, 10, math.nan if trial % 5 == 4 else float(trial % 3))


def test_gp_proposes_points_too():
    pytest.importorskip("torch")
    pytest.importorskip("scipy")
    space = Space.from_mapping({"x": "uniform(0, 1)"}, lambda name: False, ["x"])
    proposer = Bayes("gp", space, 0, 6, 10)
    for trial in range(5):
        proposer.report(trial, 10, (proposer.propose(trial)["x"] - 0.3) ** 2)
    assert space.check(proposer.propose(5))


@pytest.mark.parametrize("kind", ["tpe", "kde"])
def test_a_point_that_diverged_is_not_proposed_again(kind):
    space = Space.from_mapping({"x": "int(1, 12)"}, lambda name: False, ["x"])
    proposer = Kde(space, 0) if kind == "kde" else Bayes("tpe", space, 0, 40, 10)
    diverged: list[int] = []
    for trial in range(40):
        x = proposer.propose(trial)["x"]
        assert x not in diverged
        if x in (6, 8):  # beside the best
            diverged.append(x)
        proposer.report(trial, 10, math.nan if x in (6, 8) else abs(x - 7.0))
    assert set(diverged) == {6, 8}


def test_what_was_told_of_a_trial_is_replaced_when_it_goes_on():
    proposer = Bayes("tpe", SPACE, 0, 20, 27)
    for trial in range(3):
        proposer.propose(trial)
    for step, score in ((3, 0.5), (9, 0.4), (27, 0.3)):
        proposer.report(1, step, score)
        proposer.propose(3 + step)
        told = proposer._study.get_trials()[1]
        assert told.intermediate_values == (
            {} if step == 27 and told.value is None else {step: score}
        )
        assert told.value == score
        assert told.state.name == ("COMPLETE" if step == 27 else "PRUNED")
    assert [t.number for t in proposer._study.get_trials()] == list(range(6))


def test_given_points_come_first():
    given = [SPACE.decode([0.1, 0.1, 0.9]), SPACE.decode([0.9, 0.9, 0.1])]
    for proposer in ("tpe", "random", "kde", "sobol"):
        config = SearchConfig(trials=5, places=5, proposer=proposer)
        plan = make("random", config, SPACE, 10, 0, initial=given).first()
        assert [dict(row.point) for row in plan.assignments][:2] == given


def test_optuna_sees_a_point_in_its_own_terms():
    point = MIXED.sample(np.random.default_rng(1))
    stored = parameters(point, MIXED)
    assert {name: stored[name] for name in stored if name != "c"} == {
        name: value for name, value in point.items() if name != "c"
    }
    assert 0 <= stored["c"] <= 1


def test_a_sampler_whose_library_is_missing_names_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cmaes", None)
    config = SearchConfig(trials=5, places=1)
    with pytest.raises(UsageError, match=r"search\.proposer='cmaes' needs .*not installed"):
        drive(make("cmaes", config, SPACE, 1, 0), engine=Scored(lambda row, step: 1.0, 1))
