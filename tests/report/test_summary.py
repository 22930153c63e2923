"""Laws of the summary: gains have a sign, costs add up, nothing that is NaN wins."""

import math

import pytest

from jaxhpo.record.history import History, history
from jaxhpo.report import summarise
from tests.report import synthetic_run


@pytest.fixture(scope="session")
def summary(pbt_history):
    return summarise(pbt_history)


def test_gain_is_what_the_fixed_group_loses_by(summary):
    groups, gain = summary["groups"], summary["gain"]
    assert gain["best"] == groups["fixed"]["best"] - groups["pbt"]["best"]
    assert gain["median"] == groups["fixed"]["median"] - groups["pbt"]["best"]


def test_a_lost_comparison_has_a_negative_gain(make_run):
    events = [pair for pair in synthetic_run.events(rounds=2) if pair[0] != "finish"]
    for row in events[-2][1].get("results", ()):
        row["loss"] = row["score"] = 1.0
    groups = {"pbt": {"best": 2.0, "median": 2.1}, "fixed": {"best": 1.5, "median": 1.9}}
    best = {"trial": 0, "step": 100, "loss": 2.0, "bits_per_byte": 2.9}
    verdict = ("finish", {"best": best, "groups": groups, "seconds": 1.0, "useful": 0.5})
    run = make_run(verdict, rounds=2, finish=False)
    assert summarise(history(run))["gain"] == {"best": -0.5, "median": pytest.approx(-0.1)}


def test_there_is_no_gain_without_a_control_group(make_run):
    assert summarise(history(make_run(rounds=2, fixed=0)))["gain"] is None


def test_the_best_member_is_never_nan(make_run):
    found = summarise(history(make_run(rounds=6, finish=False, broken=(0, 1, 2, 3, 13))))
    assert math.isfinite(found["best"]["loss"])
    assert math.isnan(found["members"][-1]["loss"])


def test_a_population_of_nan_has_no_best(make_run):
    found = summarise(history(make_run(rounds=6, finish=False, broken=tuple(range(60)))))
    assert found["best"] is None
    assert found["ancestors"] == ()


def test_a_broken_fixed_member_counts_as_the_worst_of_its_group(make_run):
    found = summarise(history(make_run(rounds=6, finish=False, broken=(13, 14, 15, 12, 11))))
    assert found["groups"]["fixed"]["median"] == math.inf
    assert math.isfinite(found["groups"]["fixed"]["best"])


def test_bits_per_byte_are_nats_per_token_over_its_bytes(make_run, summary):
    member = summary["members"][0]
    assert member["bits_per_byte"] == pytest.approx(member["loss"] / math.log(2))


def test_costs_add_up(summary):
    costs = summary["costs"]
    assert costs["member_steps"] == 16 * 12 * 50
    assert costs["probe_steps"] == 16 * 12 * 10
    assert costs["probe_share"] == 10 / 60
    assert costs["probe_seconds"] == pytest.approx(costs["segment_seconds"] / 6)
    assert costs["train_seconds"] + costs["probe_seconds"] == pytest.approx(
        costs["segment_seconds"]
    )
    assert costs["seconds"] == 104.0
    assert costs["exploits"] == 2 * 11


def test_time_in_which_two_programs_are_compiled_at_once_counts_once(make_run, monkeypatch):
    past = history(make_run())
    rows = [{"time": end, "seconds": s} for end, s in ((107.0, 5.0), (106.0, 2.0), (120.0, 1.5))]
    of = History.of
    monkeypatch.setattr(History, "of", lambda p, kind: rows if kind == "compile" else of(p, kind))
    assert summarise(past)["costs"]["compile_seconds"] == pytest.approx(6.5)


def test_an_unfinished_run_says_so(make_run):
    assert summarise(history(make_run(rounds=1, finish=False)))["status"] == "unfinished"


def test_a_stopped_run_says_so(make_run):
    stop = ("stop", {"reason": "SIGTERM", "index": 0})
    assert summarise(history(make_run(stop, rounds=1, finish=False)))["status"] == "stopped"
