"""Rates as numbers: what is drawn is what trains, and what a run discovered is usable elsewhere."""

import json
import re
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

import jaxhpo
from jaxhpo import schedules
from jaxhpo.cli.main import main
from jaxhpo.config import RECIPES
from jaxhpo.config.run import PbtRun
from jaxhpo.data.config import DataConfig
from jaxhpo.errors import UsageError
from jaxhpo.nn.config import ModelConfig
from jaxhpo.population.config import ExecutionConfig
from jaxhpo.record.config import TrackerConfig
from jaxhpo.record.directory import RunDirectory
from jaxhpo.record.history import history
from jaxhpo.report.curves import best_line
from jaxhpo.report.summary import summarise
from jaxhpo.report.tracing import trace
from jaxhpo.schedules import Batches, ScheduleConfig
from jaxhpo.search.config import PbtConfig
from jaxhpo.study.rates import POINTS, of_config, of_recipe, of_run, sampled
from jaxhpo.study.runs import execute

STEPS = 30
BATCH = Batches(((0, 512),))


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search over numbers of a schedule, its kind too, with lengths in tokens."""
    run = tmp_path_factory.mktemp("runs") / "pbt"
    execute(
        PbtRun(
            steps=STEPS,
            seed=4,
            out=str(run),
            model=ModelConfig(num_layers=1, d_model=16, num_heads=2, context=16),
            schedule=ScheduleConfig(unit="tokens", warmup_steps=64.0, floor=0.1),
            data=DataConfig(source="synthetic", batch_size=2, eval_batches=2),
            pbt=PbtConfig(members=4, interval=5, beside=False, fitness="loss"),
            tracker=TrackerConfig(console="off", diagnose_every=0),
            execution=ExecutionConfig(devices=2),
            space={
                "schedule.peak_lr": "log(1e-3, 1e-1)",
                "schedule.warmup_steps": "uniform(64, 200)",
                "schedule.kind": "choice(wsd, cosine, cyclic_cosine, linear)",
                "optimizer.weight_decay": "log(1e-3, 1)",
            },
        )
    )
    return run


def test_a_discovered_schedule_is_the_rate_that_the_winner_trained_with(searched: Path) -> None:
    past = history(RunDirectory.open(searched).log)
    found = trace(past)
    steps, rates = [], []
    for row in best_line(found, summarise(past)):
        steps += list(row.curves["step"])
        rates += list(row.curves["lr"])
    assert steps == list(range(STEPS)) and len(past.exploits()) > 1
    schedule = jaxhpo.discovered_schedule(searched)
    np.testing.assert_allclose(schedule(np.array(steps)), rates, rtol=1e-6)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(schedule))


def test_a_discovered_schedule_drives_an_optax_optimizer(searched: Path) -> None:
    schedule = jaxhpo.discovered_schedule(str(searched))
    optimizer = optax.sgd(schedule)

    def step(state, _):
        update, state = optimizer.update(np.float32(1), state)
        return state, -update

    _, used = jax.jit(lambda: jax.lax.scan(step, optimizer.init(np.float32(0)), length=STEPS))()
    np.testing.assert_allclose(used, schedule(np.arange(STEPS)), rtol=1e-6)


def test_a_runs_curve_is_its_discovered_schedule(searched: Path) -> None:
    curve = of_run(searched)
    assert curve.steps == tuple(range(STEPS)) and curve.length == STEPS
    assert curve.tokens == tuple(range(0, 32 * STEPS, 32))
    expected = jaxhpo.discovered_schedule(searched)(np.arange(STEPS))
    np.testing.assert_allclose(curve.rates, expected, rtol=1e-6)


def test_the_command_prints_a_runs_numbers(searched: Path, capsys) -> None:
    assert main(["schedule", "cosine", "--steps", "60", "--from", str(searched), "--json"]) == 0
    kind, run = json.loads(capsys.readouterr().out)
    assert (kind["name"], run["name"], run["length"]) == ("cosine", "pbt", STEPS)
    assert run["rates"] == list(of_run(searched).rates)


def test_an_unfinished_run_has_no_schedule_yet(tmp_path: Path, searched: Path) -> None:
    copy = tmp_path / "cut"
    copy.mkdir()
    lines = (searched / "events.jsonl").read_text().splitlines()
    (copy / "events.jsonl").write_text("\n".join(lines[:6]) + "\n")
    with pytest.raises(UsageError, match=re.escape(f"run={copy}: the run has not finished")):
        jaxhpo.discovered_schedule(copy)


def test_a_space_with_a_corner_that_does_not_fit_is_refused_before_it_runs(tmp_path: Path) -> None:
    config = PbtRun(
        steps=STEPS,
        out=str(tmp_path / "run"),
        schedule=ScheduleConfig(warmup_steps=2.0),
        data=DataConfig(source="synthetic"),
        space={
            "schedule.warmup_steps": "uniform(1, 10)",
            "schedule.kind": "choice(wsd, cyclic_wsd, cosine)",
        },
    )
    with pytest.raises(UsageError, match=r"cycle 1 has 7.5, its warm-up and decay take 10.75"):
        execute(config)
    assert not (tmp_path / "run").exists()


def test_schedules_take_turns_and_all_count_from_zero() -> None:
    rows = [(0, schedules.constant(1.0)), (10, schedules.linear(2.0, 20.0))]
    joined = schedules.splice(rows)
    np.testing.assert_allclose(joined(np.array([0, 9, 10, 15, 25])), [1, 1, 1, 0.5, 0])
    assert float(joined(15)) == 0.5
    for wrong in ([], rows[1:], [*rows, rows[1]]):
        with pytest.raises(UsageError, match="splice: schedules begin at steps"):
            schedules.splice(wrong)


def test_both_sides_of_a_jump_are_looked_at() -> None:
    config = ScheduleConfig(
        kind="multi_step", peak_lr=1.0, warmup_steps=0.0, milestones=(123_456.0,)
    )
    curve = of_config("x", config, 1_000_000, BATCH)
    at = curve.steps.index(123_455)
    assert curve.steps[at + 1] == 123_456 and len(curve.steps) < POINTS + 20
    np.testing.assert_allclose(curve.rates[at : at + 2], [1.0, 0.1], rtol=1e-6)
    assert sampled(1, [0.0, 7.0]) == (0,)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipes_curve_has_its_published_length(name: str) -> None:
    found = RECIPES[name]
    curve = of_recipe(name, found, found.schedule)
    batches = schedules.ramp(*found.ramp) if found.ramp else Batches(found.batches)
    whole = found.length if found.schedule.unit == "tokens" else batches.tokens(int(found.length))
    seen = batches.tokens(curve.length)
    assert abs(seen - whole) <= batches.stages[-1][1]
    np.testing.assert_allclose(max(curve.rates), found.schedule.peak_lr, rtol=2e-4)
