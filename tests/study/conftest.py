"""One tiny language model for all runs of the room: its programs come from the persistent cache."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from jaxhpo.config.run import TrainRun
from jaxhpo.data.config import DataConfig
from jaxhpo.nn.config import DropoutConfig, ModelConfig
from jaxhpo.population.config import ExecutionConfig
from jaxhpo.population.engine import Engine
from jaxhpo.record.config import CheckpointConfig, TrackerConfig
from jaxhpo.schedules.config import ScheduleConfig
from jaxhpo.study.runs import execute
from tests.compilations import once

END, FORK = 800, 400


def tiny(steps: int = END, **changes) -> TrainRun:
    """A run that warms up, is stable until step 640, and decays until 800."""
    given = dict(
        steps=steps,
        seed=4,
        model=ModelConfig(num_layers=1, d_model=16, num_heads=2, context=16),
        dropout=DropoutConfig(residual=0.1),
        schedule=ScheduleConfig(warmup_steps=10, decay_start=640, decay_steps=160),
        data=DataConfig(source="synthetic", batch_size=2, eval_batches=2),
        checkpoint=CheckpointConfig(every_seconds=1e6),
        tracker=TrackerConfig(console="off", diagnose_every=0),
        execution=ExecutionConfig(devices=2),
    )
    return TrainRun(**{**given, **changes})


@pytest.fixture(scope="package", autouse=True)
def _lowered_once() -> Iterator[None]:
    """Runs of one config in one process are traced once."""
    lower = Engine.lower
    Engine.lower = once(lower)
    yield
    Engine.lower = lower


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def whole(runs: Path) -> Path:
    """800 steps in one run; states at 300, 400, 640 (where the decay begins) and 800 are kept."""
    run = runs / "whole"
    kept = CheckpointConfig(every_seconds=1e6, keep_steps=(300, FORK))
    execute(tiny(out=str(run), checkpoint=kept))
    return run


@pytest.fixture(scope="session")
def trunk(runs: Path) -> Path:
    """The same run, ended at step 400."""
    run = runs / "trunk"
    execute(replace(tiny(FORK), out=str(run)))
    return run
