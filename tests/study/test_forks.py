"""Forks: exact where nothing is reset, and where something is, only that."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import jax
import numpy as np
import pytest

from jaxhpo.config.fields import hints
from jaxhpo.config.forks import PRESETS
from jaxhpo.config.run import ForkRun
from jaxhpo.errors import UsageError
from jaxhpo.population.config import ExecutionConfig
from jaxhpo.population.member import Member
from jaxhpo.record.checkpoints import Store
from jaxhpo.record.config import CheckpointConfig
from jaxhpo.record.directory import RunDirectory
from jaxhpo.record.history import history
from jaxhpo.schedules.config import ScheduleConfig
from jaxhpo.study.implant import adopt, implant, reader
from jaxhpo.study.inheritance import inherit
from jaxhpo.study.kept import Kept
from jaxhpo.study.runs import execute, resume
from jaxhpo.study.setup import prepare
from tests.study.conftest import END, FORK

PARTS = ("params", "moments", "step")


def forked(run: Path, out: Path | None = None, **options) -> ForkRun:
    return replace(inherit(run), out=None if out is None else str(out), **options)


def member(run: Path, step: int) -> Member:
    """A member as a checkpoint has it."""
    past = history(run)
    config = past.start["config"]
    directory = RunDirectory.open(run)
    kept = Kept.of(Store(directory), past)
    _, taken = kept.find(str(step), "at", None, {})
    setup = prepare(forked(run, at=(str(step),), preset="finetune", steps=10 + config["steps"]))
    group = setup.groups.opened[()]
    abstract = group.engines[0].abstract(group.rows_like())
    return reader(Store(directory), abstract)(taken)


def assert_same_bits(found, expected) -> None:
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def same_bits(found, expected) -> bool:
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    return all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs)


def last_losses(run: Path) -> list[float]:
    return [row["loss"] for row in history(run).reports[-1]["results"]]


@pytest.fixture(scope="module")
def continued(trunk: Path, runs: Path) -> Path:
    """The trunk of 400 steps forked with everything kept and trained to 800, in a new process."""
    out = runs / "continued"
    command = ["fork", str(trunk), "--preset", "continue", "--steps", str(END), "--out", str(out)]
    found = subprocess.run(
        [sys.executable, "-m", "jaxhpo", *command], env=os.environ, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
    return out


def test_a_fork_that_resets_nothing_ends_with_the_bits_of_a_run_never_forked(
    whole: Path, continued: Path
) -> None:
    assert history(whole).start["config"]["dropout"]["residual"] == 0.1
    assert_same_bits(member(continued, END), member(whole, END))
    assert last_losses(continued) == last_losses(whole)
    assert (continued / "best" / "model.safetensors").read_bytes() == (
        whole / "best" / "model.safetensors"
    ).read_bytes()


def test_a_fork_in_this_process_from_a_kept_step_has_the_same_bits(whole: Path, runs: Path) -> None:
    out = runs / "again"
    execute(forked(whole, out, at=(str(FORK),), preset="continue"))
    assert_same_bits(member(out, END), member(whole, END))


def test_a_fork_killed_before_its_first_checkpoint_needs_its_parent_no_more(
    trunk: Path, continued: Path, runs: Path
) -> None:
    orphan, away = runs / "orphan", runs / "away"
    shutil.copytree(continued, orphan)
    shutil.rmtree(orphan / "checkpoints")
    log = orphan / "events.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    cut = next(i for i, line in enumerate(lines) if '"kind":"report"' in line)
    log.write_text("".join(lines[: cut + 1]))
    trunk.rename(away)
    try:
        resume(orphan)
    finally:
        away.rename(trunk)
    assert_same_bits(member(orphan, END), member(continued, END))


@pytest.mark.parametrize("execution", [{"devices": 1}, {"devices": 2, "chunk": 2}])
def test_another_sharding_or_chunk_goes_on_to_tolerance(
    trunk: Path, whole: Path, runs: Path, execution: dict
) -> None:
    out = runs / f"other-{execution['devices']}"
    asked = ExecutionConfig(**execution)
    execute(forked(trunk, out, preset="continue", steps=END, execution=asked))
    # 400 steps of float32 on another order of additions
    np.testing.assert_allclose(last_losses(out), last_losses(whole), rtol=1e-4)


def begun(config: ForkRun, tmp_path: Path):
    """The first member as the first plan assembles it, with its row, its batch and its origin."""
    setup = prepare(config)
    run = RunDirectory.create(tmp_path / "begun")
    adopt(setup.origin, run)
    implant(setup.groups, setup.origin, run)
    group, plan = setup.groups.opened[()], setup.scheduler.first()
    after = group.after(plan)
    starts = sorted(set(group.places.starts(plan)))
    rows = group.places.rows(plan, after, starts, group.lower)
    engine = group.engine_for(len(after.trials))
    population = engine.assemble(group.population, rows)
    place = after.trials.index(plan.assignments[0].trial)
    first = jax.tree.map(lambda leaf: np.asarray(leaf)[place], population)
    return first, plan.assignments[0], setup.corpus.train.batch_at(starts[0], 1), setup


KEPT = {
    "continue": {"params", "moments", "step", "data", "key"},
    "decay": {"params", "moments", "step", "data", "key"},
    "extend": {"params", "moments", "step", "data", "key"},
    "recycle": {"params", "moments", "step", "data", "key"},
    "finetune": {"params"},
}


@pytest.mark.parametrize("preset", PRESETS)
def test_each_preset_keeps_what_it_says_and_nothing_else(
    preset: str, whole: Path, tmp_path: Path
) -> None:
    options = {} if preset == "decay" else {"steps": 1000}
    config = forked(whole, preset=preset, **options)
    first, row, batch, setup = begun(config, tmp_path)
    step = 640 if preset in ("decay", "extend") else END
    parent = member(whole, step)
    assert setup.origin.sources[0].step == step
    equal = {part for part in PARTS if same_bits(getattr(first, part), getattr(parent, part))}
    parents_batch = prepare(config).corpus.train.__class__.batch_at
    unshifted = replace(setup.corpus.train, shift=0)
    if np.array_equal(batch["tokens"], parents_batch(unshifted, step, 1)["tokens"]):
        equal.add("data")
    if row.seed == history(whole).plans[0]["assignments"][0]["seed"]:
        equal.add("key")
    assert equal == KEPT[preset]
    if preset == "finetune":
        assert first.step == 0
        assert all(not np.any(leaf) for leaf in jax.tree.leaves(first.moments))
        assert np.array_equal(batch["tokens"], unshifted.batch_at(0, 1)["tokens"])


@pytest.mark.parametrize("part", ["moments", "step", "data", "key"])
def test_one_part_alone_can_be_reset(part: str, whole: Path, tmp_path: Path) -> None:
    config = forked(whole, at=("400",), preset="continue", reset=(part,), steps=1000)
    first, row, batch, setup = begun(config, tmp_path)
    parent = member(whole, FORK)
    same = {name: same_bits(getattr(first, name), getattr(parent, name)) for name in PARTS}
    unshifted = replace(setup.corpus.train, shift=0)
    same["data"] = np.array_equal(batch["tokens"], unshifted.batch_at(FORK, 1)["tokens"])
    same["key"] = row.seed == 0
    assert same == {name: name != part for name in same}
    # a schedule that is kept goes on where it was, whatever the step counter says
    assert setup.origin.rates[0] == np.float32(3e-3)


def test_a_schedule_that_is_reset_alone_warms_up_again(whole: Path, tmp_path: Path) -> None:
    config = forked(whole, at=("400",), preset="continue", reset=("schedule",), steps=1100)
    *_, setup = begun(config, tmp_path)
    assert setup.origin.rates == (0.0,)
    rows = setup.groups.opened[()].lower([{}])
    one = jax.tree.map(lambda leaf: leaf[0], rows.schedule)
    found = [float(one(np.int32(FORK + step))) for step in (5, 10, 639, 720)]
    np.testing.assert_allclose(found, [1.5e-3, 3e-3, 3e-3, 1.5e-3], rtol=1e-6)


def rates(run: Path) -> tuple[float, float]:
    """The rate of the parent's last step and of the child's first one, as their logs have them."""
    past = history(run)
    curves = history(Path(past.fork["run"])).curves()[past.fork["sources"][0]["trial"]]
    at = past.fork["sources"][0]["step"] - 1
    before = dict(zip(curves["step"], curves["lr"], strict=True))[at]
    return before, past.curves()[len(past.fork["sources"])]["lr"][0]


def test_the_rate_is_continuous_where_a_decay_begins(whole: Path, runs: Path) -> None:
    out = runs / "decayed"
    execute(forked(whole, out, decay=(40,), shape=("1-sqrt",)))
    before, after = rates(out)
    assert before == after == 3e-3
    assert history(out).fork["rates"] == [pytest.approx(after, rel=1e-6)]


def test_a_decay_from_a_falling_rate_begins_at_that_rate(whole: Path, runs: Path) -> None:
    with pytest.raises(UsageError, match="where the learning rate is 0 already"):
        prepare(forked(whole, at=("last",), decay=(40,)))
    execute(forked(whole, runs / "half", preset="continue", at=("640",), steps=740))
    setup = prepare(forked(runs / "half", at=("last",), decay=(40,)))
    assert setup.origin.rates[0] == pytest.approx(3e-3 * (1 - 100 / 160), rel=1e-6)


def rate_of(setup, step: int) -> float:
    rows = setup.groups.opened[()].lower([setup.origin.children[0].point])
    return float(jax.tree.map(lambda leaf: leaf[0], rows.schedule)(np.int32(step)))


@pytest.mark.parametrize("shape", get_args(hints(ScheduleConfig)["decay_shape"]))
@pytest.mark.parametrize("unit", ["steps", "tokens"])
def test_every_shape_begins_at_the_peak_whatever_lengths_are_counted_in(
    shape: str, unit: str, whole: Path
) -> None:
    config = forked(whole, at=("400",), decay=(40,), shape=(shape,))
    each = config.tokens_per_step if unit == "tokens" else 1
    schedule = ScheduleConfig(
        unit=unit, warmup_steps=10 * each, floor=0.1, half_life=12 * each, decay_steps=160 * each
    )
    setup = prepare(replace(config, schedule=schedule))
    assert setup.origin.rates[0] == pytest.approx(3e-3, rel=1e-6)
    # an exponential decay ends where its half-life says: 0.5^(40/12)
    assert 0.99e-4 < rate_of(setup, 440) < 3.1e-4
    assert setup.origin.total_steps == 440


def test_recycling_begins_at_the_peak_with_the_moments(whole: Path, runs: Path) -> None:
    out = runs / "recycled"
    execute(forked(whole, out, preset="recycle", steps=920, decay=(20,)))
    before, after = rates(out)
    assert before < 1e-4 and after == 3e-3
    curve = history(out).curves()[1]
    low = [rate for step, rate in zip(curve["step"], curve["lr"], strict=True) if step < 900]
    assert set(low) == {3e-3} and curve["lr"][-1] < 3e-4
    assert {m["keep"] for m in Store(RunDirectory.open(out)).contents().values()} == {
        "stable-end", None
    }  # fmt: skip


@pytest.fixture(scope="module")
def fan(whole: Path, runs: Path) -> tuple[Path, list[str]]:
    """Two lengths in two shapes from two points of the trunk, and what was compiled for them."""
    out = runs / "fan"
    config = forked(
        whole, out, at=("300", "400"), decay=(30, 120), shape=("linear", "cosine"),
        execution=ExecutionConfig(devices=2, compilation_cache=False),
    )  # fmt: skip
    execute(config)
    return out, [event["program"] for event in history(out).compiles]


def test_a_fan_and_ladder_is_one_population_of_one_set_of_programs(fan) -> None:
    run, programs = fan
    assert sorted(programs) == ["assemble", "evaluate", "train"]
    rows = history(run).plans[0]["assignments"]
    assert len(rows) == 8 and {row["parent"]["trial"] for row in rows} == {0, 1}
    results = history(run).reports[-1]["results"]
    assert sorted(row["step"] for row in results) == sorted(
        [330, 330, 420, 420, 430, 430, 520, 520]
    )


def test_a_child_of_a_fan_is_the_same_forked_alone(fan, whole: Path, runs: Path) -> None:
    run, _ = fan
    alone = runs / "alone"
    execute(forked(whole, alone, at=("400",), decay=(120,), shape=("cosine",)))
    results = {row["trial"]: row for row in history(run).reports[-1]["results"]}
    children = history(run).fork["children"]
    (trial,) = [
        2 + i for i, child in enumerate(children)
        if child["steps"] == 120 and child["start"] == FORK
        and child["point"]["schedule.decay_shape"] == "cosine"
    ]  # fmt: skip
    assert results[trial]["loss"] == last_losses(alone)[0]


def test_the_costs_of_a_fan_beside_separate_runs_are_stated(fan) -> None:
    costs = history(fan[0]).fork["costs"]
    assert costs == {
        "trunk_steps": 400,
        "child_steps": 4 * (30 + 120),
        "separate_steps": 4 * (30 + 120) + 4 * 300 + 4 * 400,
    }


def test_the_log_says_where_each_trial_comes_from_and_why(fan, whole: Path) -> None:
    births = history(fan[0]).births
    assert sorted(births) == list(range(2, 10))
    first = births[2]
    assert (first["run"], first["parent"], first["step"]) == ("whole", 0, 300)
    assert first["reason"] == "fork: decay"
    assert first["kept"] == ["params", "moments", "step", "data", "key", "hyperparameters"]
    assert first["difference"] == {
        "schedule.decay_start": [640.0, 300.0], "schedule.decay_steps": [160.0, 30.0]
    }  # fmt: skip
    assert history(whole).births[0]["reason"] == "newborn"


def test_an_option_that_is_changed_is_part_of_the_record(whole: Path, runs: Path) -> None:
    out = runs / "changed"
    config = forked(whole, out, at=("400",), preset="continue", steps=500)
    config = replace(config, optimizer=replace(config.optimizer, weight_decay=0.3))
    execute(config)
    event = history(out).fork
    assert event["difference"] == {"steps": [800, 500], "optimizer.weight_decay": [None, 0.3]}
    assert history(out).births[1]["difference"] == event["difference"]


def test_a_changed_text_takes_the_data_position_back_to_the_start(
    whole: Path, tmp_path: Path
) -> None:
    config = forked(whole, at=("400",), preset="continue", steps=420)
    config = replace(config, model=replace(config.model, context=8))
    first, _, batch, setup = begun(config, tmp_path)
    assert setup.origin.reset == ("data",) and first.step == FORK
    assert np.array_equal(
        batch["tokens"], replace(setup.corpus.train, shift=0).batch_at(0, 1)["tokens"]
    )


def test_a_changed_batch_size_keeps_the_position_in_sequences(whole: Path, tmp_path: Path) -> None:
    config = forked(whole, at=("400",), preset="continue", steps=420)
    config = replace(config, data=replace(config.data, batch_size=4))
    *_, batch, setup = begun(config, tmp_path)
    assert setup.origin.data_shift == -FORK // 2
    whole_batch = replace(setup.corpus.train, shift=0).batch_at(FORK // 2, 1)
    assert np.array_equal(batch["tokens"], whole_batch["tokens"])


def test_a_fork_of_a_fork_inherits_the_whole_line(fan, runs: Path) -> None:
    from jaxhpo.report.lineage import inherited_curve
    from jaxhpo.report.tracing import trace

    out = runs / "grandchild"
    execute(forked(fan[0], out, trial=9, preset="recycle", at=("last",), steps=630, decay=(10,)))
    past = history(out)
    line = past.fork["sources"][0]["line"]
    assert [row["run"] for row in line].count("fan") >= 1 and line[0]["begin"] == 0
    steps, losses = inherited_curve(trace(past), 1)
    assert steps[0] == 100 and steps[-1] == 630 and FORK in steps
    assert len(losses) == len(steps) == len(set(steps))
    assert past.fork["sources"][0]["tokens"] == 520 * 2 * 16


def test_forks_and_stable_ends_are_kept_beside_the_newest_and_the_best(whole: Path) -> None:
    contents = Store(RunDirectory.open(whole)).contents()
    kept = {data["steps"][0]: data["keep"] for data in contents.values()}
    assert {300: "fork point", FORK: "fork point", 640: "stable-end"}.items() <= kept.items()
    assert max(kept) == END


def test_a_run_that_is_being_trained_is_not_forked(whole: Path) -> None:
    with RunDirectory.open(whole).lock(), pytest.raises(UsageError, match="is running"):
        prepare(forked(whole, at=("400",)))


def test_a_checkpoint_that_is_damaged_is_not_forked(
    whole: Path, runs: Path, tmp_path: Path
) -> None:
    broken = runs / "broken"
    shutil.copytree(whole, broken)
    data = max((broken / "checkpoints").glob("*/**/d/*"), key=lambda path: path.stat().st_size)
    index = data.relative_to(broken / "checkpoints").parts[0]
    step = Store(RunDirectory.open(broken)).contents()[int(index)]["steps"][0]
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(bytes(content))
    with pytest.raises(UsageError, match="can't fork from"):
        execute(forked(broken, tmp_path / "child", preset="continue", at=(str(step),), steps=900))
    assert not (tmp_path / "child").exists()


def test_resume_falls_back_to_the_checkpoint_before_and_says_so(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from jaxhpo.record.config import TrackerConfig
    from tests.study.conftest import tiny

    run = runs / "fallback"
    config = tiny(300, checkpoint=CheckpointConfig(every_seconds=0, keep_last=9))
    execute(replace(config, out=str(run), tracker=TrackerConfig(console="lines")))
    before = last_losses(run)
    log = run / "events.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join(line for line in lines if '"kind":"finish"' not in line))
    newest = sorted((run / "checkpoints").iterdir())[-1]
    data = max(newest.glob("**/d/*"), key=lambda path: path.stat().st_size)
    data.write_bytes(data.read_bytes()[:-9])
    capsys.readouterr()
    resume(run)
    assert f"skipped {newest}" in capsys.readouterr().out
    assert last_losses(run) == before
