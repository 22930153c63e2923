"""A whole search: what it compiles, what its log replays to, and what may not change on resume."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jaxhpo.config.run import PbtRun, Run, TrainRun
from jaxhpo.data.config import DataConfig
from jaxhpo.errors import UsageError
from jaxhpo.nn.config import ModelConfig
from jaxhpo.population.config import ExecutionConfig
from jaxhpo.record.config import CheckpointConfig, TrackerConfig
from jaxhpo.record.history import history
from jaxhpo.record.log import LogError
from jaxhpo.schedules.config import ScheduleConfig
from jaxhpo.search.config import PbtConfig
from jaxhpo.study.curves import thinned
from jaxhpo.study.discovered import discovered
from jaxhpo.study.forecast import plan as forecast
from jaxhpo.study.replayed import plan_of, replay
from jaxhpo.study.runs import execute, resume
from jaxhpo.study.setup import prepare
from tests.compilations import counted

STEPS, INTERVAL, MEMBERS = 30, 5, 3


def config(out: Path | None) -> PbtRun:
    return PbtRun(
        steps=STEPS,
        seed=4,
        out=None if out is None else str(out),
        model=ModelConfig(num_layers=1, d_model=16, num_heads=2, context=16),
        schedule=ScheduleConfig(warmup_steps=2),
        data=DataConfig(source="synthetic", batch_size=2, eval_batches=2),
        pbt=PbtConfig(members=MEMBERS, interval=INTERVAL),
        checkpoint=CheckpointConfig(every_seconds=0),
        tracker=TrackerConfig(console="off"),
        execution=ExecutionConfig(devices=2, compilation_cache=False),
    )


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run, list[str]]:
    """A finished search, its config, and JAX's compile events while it ran with the cache off."""
    run = tmp_path_factory.mktemp("runs") / "pbt"
    with counted(fresh=True) as events:
        execute(config(run))
    return run, config(run), events


def test_a_search_compiles_what_the_plan_says_and_no_more(searched) -> None:
    run, asked, events = searched
    promised = forecast(replace(asked, out=None)).programs
    assert len(history(run).exploits()) >= 3, "nothing moved"
    assert len(events) == len(promised) == 5
    compiled = sorted(event["program"] for event in history(run).compiles)
    assert compiled == sorted(set(promised) - {"sample"})


def test_a_replayed_log_gives_the_same_plans(searched) -> None:
    run, asked, _ = searched
    past = history(run)
    for cut in range(len(past.reports) + 1):
        plan, _ = replay(prepare(asked).scheduler, past.plans[:cut], past.reports[:cut])
        logged = plan_of(past.plans[cut]) if cut < len(past.plans) else None
        assert plan == logged


def test_a_log_that_another_search_made_is_not_replayed(searched) -> None:
    run, asked, _ = searched
    past = history(run)
    other = replace(asked, seed=5)
    with pytest.raises(LogError, match="row 0, point"):
        replay(prepare(other).scheduler, past.plans, past.reports)


def test_a_changed_config_is_refused_by_the_names_that_differ(searched) -> None:
    run, asked, _ = searched
    changed = replace(asked, steps=STEPS + 5, pbt=PbtConfig(members=MEMBERS, interval=6))
    with pytest.raises(UsageError, match=r"steps was 30, now 35; pbt.interval was 5, now 6"):
        resume(run, changed)


def test_a_finished_run_is_not_run_again(searched) -> None:
    run, asked, _ = searched
    before = (run / "events.jsonl").read_bytes()
    outcome = resume(run, asked)
    assert outcome.best["trial"] == history(run).finish["best"]["trial"]
    assert (run / "events.jsonl").read_bytes() == before


def test_losses_and_steps_of_both_groups_are_on_record(searched) -> None:
    run, _, _ = searched
    past = history(run)
    last = past.reports[-1]["results"]
    assert [row["step"] for row in last] == [STEPS] * (2 * MEMBERS)
    assert set(past.finish["groups"]) == {"pbt", "fixed"}
    first = past.plans[0]["assignments"]
    assert [row["point"] for row in first[:MEMBERS]] == [row["point"] for row in first[MEMBERS:]]
    assert [row["seed"] for row in first[:MEMBERS]] == [row["seed"] for row in first[MEMBERS:]]


def test_the_schedule_discovered_is_the_line_of_the_best_trial(searched) -> None:
    run, _, _ = searched
    past = history(run)
    rows = discovered(run)
    steps = [step for step, _ in rows]
    assert steps[0] == 0 and steps == sorted(set(steps))
    best = past.finish["best"]["trial"]
    points = {row["trial"]: row["point"] for row in past.plans[-1]["assignments"]}
    assert rows[-1][1] == points[best]
    born = {row["trial"]: plan for plan in reversed(past.plans) for row in plan["assignments"]}
    if born[best]["index"]:
        assert len(rows) >= 2, "a copy's schedule has its parent's part"


def test_a_discovered_schedule_is_trained_again_from_scratch(searched, tmp_path: Path) -> None:
    run, asked, _ = searched
    shared = ("steps", "model", "schedule", "data", "checkpoint", "tracker", "execution")
    options = {name: getattr(asked, name) for name in shared}
    again = TrainRun(**options, schedule_from=str(run), out=str(tmp_path / "again"))
    replayed = history(execute(again).directory)
    assert len(replayed.plans[0]["assignments"]) == 1
    past = history(run)
    best = past.finish["best"]["trial"]
    # since its last copy the best trial had its own rates: the replay's are the same
    mine, found = past.curves()[best], replayed.curves()[0]
    rates = dict(zip(found["step"], found["lr"], strict=True))
    assert mine["step"] and [rates[step] for step in mine["step"]] == mine["lr"]


def test_the_schedule_of_a_run_that_has_not_finished_is_refused(searched, tmp_path: Path) -> None:
    run, _, _ = searched
    unfinished = tmp_path / "run"
    unfinished.mkdir()
    lines = (run / "events.jsonl").read_text().splitlines(keepends=True)
    kept = [line for line in lines if '"kind":"finish"' not in line.replace(": ", ":")]
    kept = kept[: next(i for i, line in enumerate(lines) if "finish" in line)]
    (unfinished / "events.jsonl").write_text("".join(kept))
    with pytest.raises(UsageError, match="has not finished"):
        discovered(unfinished)


def test_what_is_measured_now_and_then_is_on_record_at_its_own_steps(searched) -> None:
    run, _, _ = searched
    reports = history(run).reports
    rows = [report["diagnostics"] for report in reports]
    steps = {step for row in rows for curve in row.values() for step in curve["step"]}
    assert steps == {0, 10, 20}
    curve = rows[0]["0"]
    names = {
        "grad_norm/query",
        "update_norm/embedding",
        "param_norm/norm",
        "lr_per_norm",
        "lr_adam",
    }
    assert names <= set(curve)
    assert all(len(values) == len(curve["step"]) == 1 for values in curve.values())
    assert not names & set(reports[0]["curves"]["0"])


def test_the_share_clipped_is_the_mean_since_the_point_logged_before() -> None:
    made = np.array([1, 0, 0, 1, 1, 1, 0] * 17, np.float32)  # 119 steps, of which 40 are logged
    curve = thinned({"step": np.arange(119), "loss": made, "clipped/query": made})
    assert curve["step"] == list(range(1, 119, 3)) and curve["step"][-1] == 118
    begins = [0, *(step + 1 for step in curve["step"][:-1])]
    means = [made[a : b + 1].mean() for a, b in zip(begins, curve["step"], strict=True)]
    assert curve["clipped/query"] == pytest.approx(means, rel=1e-6)
    assert curve["loss"] == made[curve["step"]].tolist()
