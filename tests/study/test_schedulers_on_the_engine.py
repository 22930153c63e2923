"""Every scheduler through one compiled engine: and replays, and pauses that lose nothing."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from jaxhpo.population.rows import make_rows
from jaxhpo.search.config import PbtConfig, SearchConfig
from jaxhpo.search.plan import Plan, Point, Report
from jaxhpo.search.space import Space
from jaxhpo.search.table import SEARCHES, make
from jaxhpo.study.compile_group import CompileGroup
from jaxhpo.study.groups import Groups
from jaxhpo.study.incumbent import best_of
from jaxhpo.study.loop import Study
from tests.population.conftest import make_engine
from tests.population.test_toy_quadratic import Quadratic

PLACES, STEPS, SEGMENT, PROBE, STREAMS = 20, 18, 18, 4, 16
TEXTS = {"h0": "uniform(0, 1)", "h1": "uniform(0, 1)"}
SPACE = Space.from_mapping(TEXTS, lambda name: False, list(TEXTS))


class Listens:
    """A record that keeps plans and reports."""

    def __init__(self) -> None:
        self.history: list[tuple[Plan, Report]] = []
        self.kept: list[int] = []

    def planned(self, *_: Any) -> None: ...

    def save(self, *_: Any, **__: Any) -> None: ...

    def keep(self, index: int, best: Any, params: Any) -> None:
        assert np.isfinite(params).all()
        self.kept.append(best.trial)

    def reported(self, index: int, plan: Plan, report: Report, *_: Any) -> None:
        self.history.append((plan, report))


def lower(points: list[Point]) -> Mapping[str, np.ndarray]:
    rows = [[p.get("h0", 0.5), p.get("h1", 0.5)] for p in points]
    return {"h": np.array(rows, np.float32)}


@pytest.fixture(scope="module")
def engine() -> Any:
    return make_engine(Quadratic(), devices=2, members=PLACES)


def study_of(engine: Any, scheduler: Any, record: Any) -> Study:
    group = CompileGroup(
        engines=[engine],
        lower=lower,
        batch_at=lambda step, steps: np.zeros((steps, 1), np.float32),
        held_out=np.zeros((1, 1), np.float32),
        segment=SEGMENT,
        probe=PROBE,
        streams=STREAMS,
    )
    return Study(scheduler, Groups.of_one(group), record)


def scheduler_of(name: str) -> Any:
    config = SearchConfig(
        scheduler=name,
        trials=6,
        min_steps=2,
        segment=9,
        keep=2,
        levels=2,
        forks=2,
        places=None if name in ("grid", "halving", "hyperband", "bohb") else 3,
    )
    pbt = PbtConfig(members=4, interval=6, beside=False)
    return make(name, config, SPACE, STEPS, 3, pbt=pbt, anneal_start=15)


@pytest.mark.parametrize("name", SEARCHES)
def test_every_scheduler_runs_to_its_end_on_programs_that_are_there(name: str, engine) -> None:
    scheduler, record = scheduler_of(name), Listens()
    extent = scheduler.extent
    assert extent.held <= PLACES and extent.steps <= SEGMENT and extent.probe <= PROBE
    assert extent.starts <= STREAMS
    study = study_of(engine, scheduler, record)
    study.run(scheduler.first(), lambda: None)
    assert {kind for kind, _ in engine.built} <= {"assemble", "train", "evaluate", "probe"}
    assert len(engine.built) <= 4, "nothing was compiled for this scheduler alone"
    results = [result for _, report in record.history for result in report]
    assert max(result.step for result in results) == STEPS
    assert all(math.isfinite(result.loss) for result in results)
    best = best_of(study.results)
    home = study.groups.holding(best.trial)
    assert best.step == STEPS
    assert home is not None or record.kept[-1] == best.trial, "the best model is not lost"


def test_replaying_the_reports_of_the_engine_gives_the_same_plans(engine) -> None:
    for name in ("asha", "hyperband", "tpe", "wsd-forks"):
        scheduler, record = scheduler_of(name), Listens()
        study_of(engine, scheduler, record).run(scheduler.first(), lambda: None)
        again = scheduler_of(name)
        plan = again.first()
        for expected, report in record.history:
            assert plan == expected
            plan = again.next(report)
        assert plan is None


def test_a_paused_trial_keeps_its_bits(engine) -> None:
    """Asynchronous halving pauses and promotes: what comes back is what was left."""
    scheduler, record = scheduler_of("asha"), Listens()
    study_of(engine, scheduler, record).run(scheduler.first(), lambda: None)
    paused = {trial for plan, _ in record.history for trial in plan.paused}
    ends: dict[int, dict[int, tuple]] = {}
    for _, report in record.history:
        for result in report:
            ends.setdefault(result.trial, {})[result.step] = result.samples
    promoted = [trial for trial in paused if max(ends[trial]) == STEPS]
    assert promoted
    rows = {row.trial: row for plan, _ in record.history for row in plan.assignments}
    for trial in promoted:
        row = rows[trial]
        values = lower([row.point])
        cuts = sorted(ends[trial])
        alone = make_rows(values, seeds=[row.seed], steps=[cuts[0]], newborn=[True])
        population = engine.assemble(engine.empty(alone), alone)
        at = 0
        for cut in cuts:
            host_rows = make_rows(values, seeds=[row.seed], steps=[cut - at])
            zeros = np.zeros((STREAMS, SEGMENT, 1), np.float32)
            population, _ = engine.train(population, host_rows, zeros)
            loss = engine.evaluate(population, host_rows, np.zeros((1, 1), np.float32))
            at = cut
        assert ends[trial][STEPS] == (float(np.asarray(loss)[0, 0]),)
