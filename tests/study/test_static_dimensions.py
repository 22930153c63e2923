"""A search over traced and static dimensions: what it compiles, what it resumes to, who moves."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxhpo.config.run import SearchRun
from jaxhpo.data.config import DataConfig
from jaxhpo.errors import UsageError
from jaxhpo.nn.config import ModelConfig
from jaxhpo.population.config import ExecutionConfig
from jaxhpo.record.config import CheckpointConfig, TrackerConfig
from jaxhpo.record.history import history
from jaxhpo.schedules.config import ScheduleConfig
from jaxhpo.search.config import SearchConfig
from jaxhpo.search.fixed import Fixed
from jaxhpo.search.plan import Plan
from jaxhpo.study.forecast import forecast
from jaxhpo.study.loop import Study
from jaxhpo.study.recorder import Recorder
from jaxhpo.study.replayed import plan_of
from jaxhpo.study.runs import execute, resume
from jaxhpo.study.setup import prepare
from tests.compilations import counted

TRIALS, STEPS = 32, 18
SPACE = {
    "schedule.peak_lr": "log(1e-3, 1e-1)",
    "optimizer.weight_decay": "log(1e-3, 1)",
    "schedule.warmup_steps": "int(1, 4)",
    "dropout.residual": "uniform(0, 0.3)",
    "model.num_layers": "choice(1, 2)",
}


def config(out: Path | None, **search: Any) -> SearchRun:
    options = {"scheduler": "asha", "trials": TRIALS, "places": 8, "min_steps": 2, "rank": "loss"}
    return SearchRun(
        steps=STEPS,
        seed=4,
        out=None if out is None else str(out),
        model=ModelConfig(num_layers=1, d_model=16, num_heads=2, context=16),
        schedule=ScheduleConfig(warmup_steps=2),
        data=DataConfig(source="synthetic", batch_size=2, eval_batches=2),
        search=SearchConfig(**{**options, **search}),
        space=SPACE,
        checkpoint=CheckpointConfig(every_seconds=0),
        tracker=TrackerConfig(console="off", diagnose_every=0),
        execution=ExecutionConfig(devices=4, compilation_cache=False),
    )


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A finished search of 32 trials, and JAX's compile events with the cache off."""
    run = tmp_path_factory.mktemp("runs") / "search"
    with counted(fresh=True) as events:
        execute(config(run))
    return run, events


def test_a_search_over_depth_compiles_what_promise_1_and_the_plan_say(searched) -> None:
    run, events = searched
    promised = forecast(prepare(config(None)))
    kinds, groups, sizes, layouts, sample = 3, 2, 1, 1, 1
    assert len(promised.programs) == kinds * groups * sizes * layouts + sample
    assert len(events) == len(promised.programs)
    compiled = sorted(event["program"] for event in history(run).compiles)
    assert compiled == sorted(set(promised.programs) - {"sample"})
    assert f"programs compiled  {len(events)}" in str(promised)
    trials = {row["trial"] for plan in history(run).plans for row in plan["assignments"]}
    assert len(trials) == TRIALS
    assert sum(group.trials for group in promised.groups) == TRIALS


def test_the_plan_shows_each_group_and_what_one_by_one_would_cost() -> None:
    text = str(forecast(prepare(config(None))))
    assert "model.num_layers=1" in text and "model.num_layers=2" in text
    assert "one by one" in text and f"{TRIALS * STEPS:,} member-steps" in text
    assert "MiB" in text and "FLOP a step" in text


def test_the_best_model_is_saved_with_its_own_depth(searched) -> None:
    from safetensors.numpy import load_file

    run, _ = searched
    best = history(run).finish["best"]
    assert best["step"] == STEPS, "fully trained"
    point = json.loads((run / "schedule.json").read_text())[-1]["point"]
    layers = {leaf.shape[0] for name, leaf in load_file(run / "best/model.safetensors").items()
              if name.startswith("blocks.")}  # fmt: skip
    assert layers == {point["model.num_layers"]}
    full = [
        row["loss"] for event in history(run).reports for row in event["results"]
        if row["step"] == STEPS and isinstance(row["loss"], float)
    ]  # fmt: skip
    assert best["loss"] == min(full)


class Killed(BaseException):
    """Ends a process in the middle, as far as a test in one process can."""


@pytest.mark.parametrize("reports", [2, 5])
def test_a_killed_search_of_several_groups_ends_with_the_same_bits(
    searched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reports: int
) -> None:
    whole, _ = searched
    run = tmp_path / "search"
    reported, left = Recorder.reported, [reports]

    def dying(self: Recorder, *args: Any) -> None:
        reported(self, *args)
        left[0] -= 1
        if not left[0]:
            raise Killed

    monkeypatch.setattr(Recorder, "reported", dying)
    with pytest.raises(Killed):
        execute(config(run))
    monkeypatch.setattr(Recorder, "reported", reported)
    assert history(run).finish is None
    resume(run)
    past, expected = history(run), history(whole)
    assert past.rewinds == 1
    assert [e["assignments"] for e in past.plans] == [e["assignments"] for e in expected.plans]
    assert [e["results"] for e in past.reports] == [e["results"] for e in expected.reports]
    assert [e["curves"] for e in past.reports] == [e["curves"] for e in expected.reports]
    weights = lambda path: (path / "best" / "model.safetensors").read_bytes()
    assert weights(run) == weights(whole)


def journeys(plans: list[Plan]) -> Iterator[tuple[int, bool, set[int]]]:
    """Trial, whether it was ever paused, and the places it had."""
    groups = prepare(config(None)).groups
    places: dict[int, set[int]] = {}
    paused = {trial for plan in plans for trial in plan.paused}
    for plan in plans:
        groups.follow(plan)
        for group in groups.opened.values():
            for trial in group.places.held:
                places.setdefault(trial, set()).add(group.places.trials.index(trial))
    return ((trial, trial in paused, found) for trial, found in places.items())


class Listens:
    """A record that keeps every report."""

    def __init__(self) -> None:
        self.reports: list[Any] = []

    def planned(self, *_: Any) -> None: ...

    def save(self, *_: Any, **__: Any) -> None: ...

    def reported(self, index: int, plan: Any, report: Any, *_: Any) -> None:
        self.reports.append(report)


def test_a_trial_that_was_paused_and_moved_equals_the_same_trial_alone(searched) -> None:
    run, _ = searched
    past = history(run)
    plans = [plan_of(event) for event in past.plans]
    ends = {}
    for event in past.reports:
        for row in event["results"]:
            ends.setdefault(row["trial"], {})[row["step"]] = row
    moved = [
        trial for trial, paused, places in journeys(plans)
        if paused and len(places) > 1 and STEPS in ends[trial]
    ]  # fmt: skip
    assert moved, "nobody was paused, moved and then trained to the end"
    for trial in moved[:2]:
        row = next(r for p in plans for r in p.assignments if r.trial == trial)
        alone = prepare(config(None, trials=1, places=1))
        scheduler = Fixed([row.point], STEPS, sorted(ends[trial]), seeds=[row.seed])
        record = Listens()
        Study(scheduler, alone.groups, record).run(scheduler.first(), lambda: None)
        for (result,) in record.reports:
            expected = ends[trial][result.step]
            assert result.samples == tuple(expected["samples"]), f"trial {trial}"


def test_values_that_no_model_takes_are_refused_before_anything_starts(tmp_path: Path) -> None:
    space = {**SPACE, "model.num_heads": "choice(2, 3)"}
    for scheduler in ("random", "tpe"):
        asked = replace(config(tmp_path / "run", scheduler=scheduler), space=space)
        with pytest.raises(UsageError, match=r"model\.num_heads=3"):
            execute(asked)
    assert not (tmp_path / "run").exists()


def test_a_search_over_text_or_tokens_is_refused() -> None:
    with pytest.raises(UsageError, match=r"data.batch_size"):
        replace(config(None), space={"data.eval_batches": "choice(1, 2)"})


def test_batch_size_and_context_make_groups_with_batches_of_their_own() -> None:
    space = {"model.context": "choice(8, 16)", "data.batch_size": "choice(2, 4)"}
    asked = replace(config(None, scheduler="grid"), space=space)
    groups = prepare(asked).groups.opened.values()
    shapes = {group.batch_at(0, 1)["tokens"].shape for group in groups}
    assert shapes == {(1, b, t + 1) for b in (2, 4) for t in (8, 16)}
    held_out = {np.shape(group.held_out["tokens"]) for group in groups}
    assert held_out == {(2, 2, 9), (2, 2, 17)}, "losses are measured on the same windows"
