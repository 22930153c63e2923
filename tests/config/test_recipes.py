"""Published recipes: as their authors print them, and as the defaults of a run."""

from pathlib import Path

import numpy as np
import pytest

from jaxhpo import schedules
from jaxhpo.cli.options import parse
from jaxhpo.config import (
    RECIPES,
    PbtRun,
    TrainRun,
    from_dict,
    load,
    recipe,
    to_dict,
    to_toml,
    with_recipe,
)
from jaxhpo.errors import UsageError
from jaxhpo.schedules import Batches, ScheduleConfig

names = pytest.mark.parametrize("name", RECIPES)


def published(name):
    """The recipe's schedule over the steps of its own batches."""
    found = RECIPES[name]
    if found.schedule.unit == "steps":
        return schedules.lower(found.schedule, found.length)
    return schedules.over_tokens(found.schedule, found.length, batches(name))


def batches(name):
    found = RECIPES[name]
    return schedules.ramp(*found.ramp) if found.ramp else Batches(found.batches)


@pytest.mark.parametrize(
    ("samples", "logged"),
    [
        (59_312, "1.944E-05"),
        (9_841_584, "5.969E-05"),
        (47_768_496, "5.279E-05"),
        (47_784_880, "5.278E-05"),
        (76_002_224, "4.298E-05"),
        (158_692_272, "1.150E-05"),
    ],
)
def test_bloom_prints_the_rates_of_its_published_log(samples, logged):
    over_samples = schedules.over_tokens(
        RECIPES["bloom-176b"].schedule, RECIPES["bloom-176b"].length, Batches(((0, 2048),))
    )
    assert f"{float(over_samples(samples)):.3E}" == logged


@pytest.mark.parametrize(
    ("iteration", "samples", "tokens", "logged"),
    [
        (12_695, 9_841_584, 20_155_564_032, "5.969E-05"),
        (31_214, 47_768_496, 97_829_879_808, "5.279E-05"),
        (31_222, 47_784_880, 97_863_434_240, "5.278E-05"),
        (45_000, 76_002_224, 155_652_554_752, "4.298E-05"),
    ],
)
def test_blooms_batch_ramp_leads_to_the_iterations_of_its_log(iteration, samples, tokens, logged):
    ramp = batches("bloom-176b")
    assert ramp.tokens(iteration) == tokens == samples * 2048
    assert int(ramp.steps(RECIPES["bloom-176b"].length)) == 115_311  # the log's "of"
    assert f"{float(published('bloom-176b')(iteration)):.3E}" == logged


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("gpt-3", {0: 0.0, 375e6: 6e-5, 260e9: 6e-6, 299e9: 6e-6}),
        ("llama-2", {2000: 3e-4, 476_838: 3e-5}),
        ("llama-2-70b", {2000: 1.5e-4, 476_838: 1.5e-5}),
        ("llama-3-405b", {8000: 8e-5, 604_000: 4.04e-5, 1_200_000: 8e-7, 1_247_683: 8e-7}),
        ("llama-3-405b-pretraining", {8000: 8e-5, 1_200_000: 8e-7}),
        ("llama-3-405b-long-context", {0: 8e-7, 47_000: 8e-7}),
        ("llama-3-405b-annealing", {0: 8e-7, 3: 0.0}),
        ("bert", {5000: 5e-5, 9_999: 0.9999e-4, 10_000: 0.99e-4, 500_000: 5e-5, 1_000_000: 0.0}),
        ("minicpm", {0: 0.01, 262_999: 0.01, 268_000: 0.005, 273_000: 0.0025}),
        ("deepseek-llm-7b", {2000: 4.2e-4, 169_542: 4.2e-4, 169_543: 1.328157e-4, 190_736: 4.2e-5}),
        ("deepseek-llm-67b", {2000: 3.2e-4, 84_771: 3.2e-4, 84_772: 1.011929e-4, 95_368: 3.2e-5}),
    ],
)
def test_recipes_have_the_rates_that_their_authors_print(name, rates):
    at = np.array([batches(name).steps(x) if name == "gpt-3" else x for x in rates])
    np.testing.assert_allclose(published(name)(at), list(rates.values()), rtol=2e-6)


@names
def test_a_scaled_recipe_is_the_same_curve_over_the_tokens(name):
    found, shares = RECIPES[name], np.linspace(0, 1, 31)
    scaled = schedules.lower(found.scaled(1000), 1000)
    steps = found.length * shares
    if found.schedule.unit == "tokens":
        steps = np.array([batches(name).steps(int(tokens)) for tokens in steps])
    peak = found.schedule.peak_lr
    np.testing.assert_allclose(
        scaled(shares * 1000), published(name)(steps), rtol=1e-4, atol=1e-6 * peak
    )


@names
def test_a_recipe_states_its_source_and_what_was_verified_and_can_be_run(name):
    found = recipe(name)
    assert "arXiv" in found.source or "bigscience" in found.source
    assert found.verified and found.optimizer.keys() <= vars(TrainRun().optimizer).keys() | {"kind"}
    config = with_recipe(TrainRun(steps=700), name)
    assert from_dict(TrainRun, to_dict(config)) == config
    schedules.lower(config.schedule, 700)


def test_what_is_given_overrides_the_recipe_wherever_it_stands(tmp_path: Path):
    base = with_recipe(TrainRun(steps=500), "llama-2")
    assert (base.schedule.kind, base.optimizer.eps) == ("cosine", 1e-5)
    line = ["--recipe", "llama-2", "--steps", "500"]
    assert parse(TrainRun, line, "x") == base
    found = parse(TrainRun, [*line, "--schedule.floor", "0.5", "--optimizer.eps", "1e-8"], "x")
    assert (found.schedule.floor, found.optimizer.eps) == (0.5, 1e-8)
    assert found.schedule.warmup_steps == base.schedule.warmup_steps

    path = tmp_path / "run.toml"
    path.write_text('recipe = "llama-2"\nsteps = 500\n[schedule]\nfloor = 0.25\n')
    assert load(TrainRun, path).schedule.floor == 0.25
    assert load(TrainRun, path).optimizer == base.optimizer
    longer = parse(TrainRun, ["--config", str(path), "--steps", "1000"], "x")
    assert longer.schedule.warmup_steps == 2 * base.schedule.warmup_steps
    assert longer.schedule.floor == 0.25
    other = parse(TrainRun, ["--config", str(path), "--recipe", "bert"], "x")
    assert (other.schedule.kind, other.schedule.floor) == ("sequence", 0.25)


def test_what_is_saved_is_resolved(tmp_path: Path):
    found = parse(PbtRun, ["--recipe", "llama-3-405b", "--steps", "300"], "x")
    path = tmp_path / "config.toml"
    path.write_text(to_toml(found))
    assert "recipe" not in path.read_text() and load(PbtRun, path) == found


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (["--recipe", "llama2"], "recipe=llama2: no such recipe; perhaps you meant llama-2"),
        (["--recipe", "llama-2", "--steps", "0"], "steps=0; allowed: 1 to"),
        (["--recipe", "llama-2", "--steps", "x"], "--steps x; allowed: a whole number"),
        (["--recipe"], "--recipe has no value"),
        (["--recipe", "bert", "--schedule.floor", "2"], "schedule.floor=2.0 is a share"),
    ],
)
def test_a_mistake_beside_a_recipe_is_named(line, says):
    with pytest.raises(UsageError, match=says):
        parse(TrainRun, line, "x")


def test_no_recipe_is_the_default(tmp_path: Path):
    assert parse(TrainRun, ["--recipe", "none"], "x") == TrainRun()
    path = tmp_path / "run.toml"
    path.write_text("recipe = 5\n")
    with pytest.raises(UsageError, match="recipe=5: no such recipe"):
        load(TrainRun, path)
    assert ScheduleConfig() == TrainRun().schedule
