"""Members that differ in the kind of their schedule share one program."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from jaxhpo.population import hyperparams
from jaxhpo.schedules import KINDS
from jaxhpo.schedules.config import ScheduleConfig
from tests.population.conftest import (
    MODEL,
    STEPS,
    Regression,
    assert_equal_bits,
    born,
    make_engine,
    row,
)

NAMES = (
    "schedule.kind",
    "schedule.decay_shape",
    "schedule.peak_lr",
    "schedule.warmup_steps",
    "optimizer.weight_decay",
    "optimizer.clip_norm",
)
SHAPES = ("polynomial", "cosine", "1-sqrt", "exponential", "geometric")


@pytest.fixture(scope="module")
def sixteen(config):
    """A config whose run is as long as the test's, and 16 points with 16 different schedules."""
    schedule = ScheduleConfig(
        peak_lr=0.01, warmup_steps=1.0, floor=0.1, half_life=1.0, phases=("cosine 3 to 0.2",)
    )
    kinds = [(kind, "linear") for kind in KINDS] + [("wsd", shape) for shape in SHAPES]
    rng = np.random.default_rng(0)
    points = [
        dict(zip(NAMES, (kind, shape, *map(float, numbers)), strict=True))
        for (kind, shape), numbers in zip(
            kinds, rng.uniform((0.005, 1, 0.01, 0.2), (0.03, 1.3, 1, 2), (16, 4)), strict=True
        )
    ]
    return replace(config, steps=STEPS, schedule=schedule), points


def test_sixteen_schedules_decays_and_thresholds_compile_once_and_equal_their_solo_runs(
    sixteen, newborn_rows, batches
):
    config, points = sixteen
    task = Regression(MODEL, config.optimizer)
    lower = lambda points: hyperparams.lower(config, NAMES, points)
    rows = lambda which: replace(
        newborn_rows([{}] * len(which), seeds=which),
        hyperparams=lower([points[i] for i in which]),
    )
    engine = make_engine(task, members=16)
    everyone = rows(range(16))
    population, metrics = engine.train(born(engine, everyone), everyone, batches)
    population, metrics = jax.device_get((population, metrics))
    assert [name for name, _ in engine.built] == ["assemble", "train"]
    assert len({metrics["lr"][place].tobytes() for place in range(16)}) == 16
    assert np.isfinite(metrics["loss"][:16]).all()

    for place in range(16):
        alone = rows([place])  # the same program, its other rows idle
        solo, curves = engine.train(born(engine, alone), alone, batches)
        assert_equal_bits(row(solo, 0), row(population, place))
        assert_equal_bits(row(curves, 0), row(metrics, place))
    assert [name for name, _ in engine.built] == ["assemble", "train"]
