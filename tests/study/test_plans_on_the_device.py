"""What single plans mean on the device: older parents, smaller populations, values refused."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jaxhpo.config.run import SearchRun
from jaxhpo.data.config import DataConfig
from jaxhpo.errors import UsageError
from jaxhpo.nn.config import ModelConfig
from jaxhpo.population.config import ExecutionConfig
from jaxhpo.record.config import CheckpointConfig, TrackerConfig
from jaxhpo.record.directory import RunDirectory
from jaxhpo.record.history import history
from jaxhpo.schedules.config import ScheduleConfig
from jaxhpo.search.config import SearchConfig
from jaxhpo.search.plan import Assignment, Extent, Parent, Plan, Report
from jaxhpo.study.forecast import forecast
from jaxhpo.study.runs import carry_out
from jaxhpo.study.setup import Setup, prepare

POINT = {"schedule.peak_lr": 0.02}


class Scripted:
    """The plans of a list, whatever is reported."""

    foreseen = None

    def __init__(self, plans: Sequence[Plan], held: int, points: Any = None) -> None:
        self.plans, self.held, self.foreseen = list(plans), held, points
        self.reports: list[Report] = []

    @property
    def extent(self) -> Extent:
        rows = [row for plan in self.plans for row in plan.assignments]
        return Extent(
            rows=self.held,
            held=self.held,
            steps=max(row.steps for row in rows),
            trained=sum(row.steps for row in rows),
            starts=2,
        )

    def first(self) -> Plan:
        self.left = self.plans[1:]
        return self.plans[0]

    def next(self, report: Report) -> Plan | None:
        self.reports.append(report)
        return self.left.pop(0) if self.left else None


def config(out: Path | None = None, **execution: Any) -> SearchRun:
    return SearchRun(
        steps=12,
        seed=4,
        out=None if out is None else str(out),
        model=ModelConfig(num_layers=1, d_model=16, num_heads=2, context=16),
        schedule=ScheduleConfig(warmup_steps=2),
        data=DataConfig(source="synthetic", batch_size=2, eval_batches=2),
        search=SearchConfig(scheduler="random", trials=2),
        space={"schedule.peak_lr": "log(1e-3, 1e-1)"},
        checkpoint=CheckpointConfig(every_seconds=0, keep_last=10),
        tracker=TrackerConfig(console="off", diagnose_every=0),
        execution=ExecutionConfig(**{"devices": 2, "compilation_cache": False, **execution}),
    )


def scripted(monkeypatch: pytest.MonkeyPatch, asked: SearchRun, scheduler: Scripted) -> Setup:
    monkeypatch.setattr("jaxhpo.study.setup.make_scheduler", lambda *_: scheduler)
    return prepare(asked)


def row(trial: int, parent: Parent | None, steps: int, seed: int | None = None, **more: Any):
    point = more.pop("point", POINT)
    return Assignment(trial, point, parent, steps, trial if seed is None else seed, **more)


def run_plans(
    monkeypatch: pytest.MonkeyPatch,
    out: Path,
    plans: Sequence[Plan],
    held: int,
    points: Any = None,
    asked: SearchRun | None = None,
) -> Scripted:
    asked = config(out) if asked is None else asked
    scheduler = Scripted(plans, held, points)
    setup = scripted(monkeypatch, asked, scheduler)
    carry_out(setup, RunDirectory.create(out))
    return scheduler


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every save is committed before the next segment, so that every step is there."""
    from jaxhpo.study.recorder import Recorder

    save = Recorder.save
    monkeypatch.setattr(Recorder, "save", lambda self, *a, last, due: save(self, *a, last=True))


def test_a_trial_born_of_an_older_step_goes_on_from_there_to_the_bit(
    monkeypatch, tmp_path: Path, waiting
) -> None:
    plans = [
        Plan((row(0, None, 4),)),
        Plan((row(0, Parent(0), 4),)),
        Plan((row(1, Parent(0, 4), 4, seed=0),), paused=(0,)),
        Plan((row(2, Parent(0, 4), 4, seed=0, keep=("params", "step")),), paused=(0, 1)),
        Plan((row(0, Parent(0, 8), 4),)),
    ]
    found = run_plans(monkeypatch, tmp_path / "run", plans, held=3).reports
    assert (found[2][0].step, found[2][0].samples) == (8, found[1][0].samples)
    assert found[3][0].step == 8 and found[3][0].samples != found[1][0].samples
    assert found[4][0].step == 12


def test_a_step_that_no_checkpoint_has_is_refused_by_the_steps_that_are_there(
    monkeypatch, tmp_path: Path, waiting
) -> None:
    plans = [
        Plan((row(0, None, 4),)),
        Plan((row(0, Parent(0), 4),)),
        Plan((row(1, Parent(0, 6), 4),)),
    ]
    with pytest.raises(UsageError, match="trial 0 at step 6; steps there are: 4, 8"):
        run_plans(monkeypatch, tmp_path / "run", plans, held=2)


def test_a_trial_that_no_model_can_be_made_for_is_infeasible_and_the_rest_go_on(
    monkeypatch, tmp_path: Path
) -> None:
    points = [{**POINT, "model.d_model": width} for width in (16, 17)]
    plans = [
        Plan(tuple(row(i, None, 4, point=point) for i, point in enumerate(points))),
        Plan(tuple(row(i, Parent(i), 4, point=point) for i, point in enumerate(points))),
    ]
    asked = config(tmp_path / "run")
    space = {**asked.space, "model.d_model": "int(16, 5000)"}
    found = run_plans(
        monkeypatch, tmp_path / "run", plans, held=2, asked=replace(asked, space=space)
    ).reports
    assert [result.step for result in found[1]] == [8, 8]
    assert np.isfinite(found[1][0].loss) and np.isnan(found[1][1].loss)
    events = history(tmp_path / "run").of("infeasible")
    assert [event["trial"] for event in events] == [1, 1]
    assert "model.d_model=17" in events[0]["reason"]
    assert history(tmp_path / "run").finish["best"]["trial"] == 0


def halving(trials: int) -> tuple[list[Plan], list[dict]]:
    points = [{"schedule.peak_lr": 0.005 * (i + 1)} for i in range(trials)]
    plans, left = [], list(range(trials))
    while left:
        parent = lambda i: Parent(i) if plans else None
        plans.append(Plan(tuple(row(i, parent(i), 4, point=points[i]) for i in left)))
        left = left[len(left) // 2 :] if len(left) > 1 and len(plans) < 3 else []
    return plans, points


def test_a_population_of_which_trials_were_let_go_moves_to_the_next_smaller_size(
    monkeypatch, tmp_path: Path
) -> None:
    plans, points = halving(8)
    found = {}
    for name, sizes in (("whole", 1), ("shrinking", 3)):
        asked = config(tmp_path / name, chunk=4, sizes=sizes, devices=1)
        scheduler = Scripted(plans, 8, points)
        setup = scripted(monkeypatch, asked, scheduler)
        promised = forecast(setup).programs
        carry_out(setup, RunDirectory.create(tmp_path / name))
        (group,) = setup.groups.opened.values()
        found[name] = (scheduler.reports, group, promised)
        past = history(tmp_path / name)
        compiled = [event["program"] for event in past.compiles]
        assert sorted(compiled) == sorted(set(promised) - {"sample"})
        engines = [len(engine.built) for engine in group.engines]
        assert sum(engines) == len(compiled), "what is compiled is what was promised"
    rows = lambda name: jax.tree.leaves(found[name][1].population)[0].shape[0]
    assert [engine.size for engine in found["shrinking"][1].engines] == [8, 4, 2]
    assert (rows("whole"), rows("shrinking")) == (8, 2), "memory is freed"
    for a, b in zip(found["whole"][0], found["shrinking"][0], strict=True):
        for old, new in zip(a, b, strict=True):
            np.testing.assert_allclose(old.samples, new.samples, rtol=1e-4)  # sums in another order
    useful = lambda name: history(tmp_path / name).finish["useful"]
    assert useful("whole") == pytest.approx(56 / (56 + 4 * 2))
    assert useful("shrinking") == 1.0, "no lane was idle"


def test_answers_of_a_shared_study_are_logged_once_and_a_replay_asks_nobody(
    tmp_path: Path,
) -> None:
    from jaxhpo.record.log import EventLog, read
    from jaxhpo.study.journal import LogJournal

    journal = LogJournal()
    assert journal.once("ask 0", lambda: {"x": 0.5}) == {"x": 0.5}
    with EventLog(tmp_path / "events.jsonl") as log:
        journal.bind(log)
        assert journal.once("ask 1", lambda: 7) == 7
        assert [event["question"] for event in read(log.path)] == ["ask 0", "ask 1"]
    again = LogJournal(history(tmp_path / "events.jsonl"))
    never = lambda: pytest.fail("asked again")
    assert again.once("ask 0", never) == {"x": 0.5}
    assert again.once("ask 1", never) == 7
