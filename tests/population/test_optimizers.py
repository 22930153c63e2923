"""Every optimizer in a population: one program for all numbers, and each member as if alone."""

import itertools
from dataclasses import replace

import jax
import numpy as np
import pytest

from jaxhpo.optimizers.config import OptimizerConfig
from jaxhpo.population import hyperparams
from jaxhpo.population.rows import make_rows
from jaxhpo.population.task import LanguageModel
from tests.compilations import counted
from tests.population.conftest import (
    MODEL,
    STEPS,
    Regression,
    assert_equal_bits,
    born,
    drawn,
    make_engine,
    row,
)

MEMBERS = 16
EXTRA = {
    "adamw": dict(decay="schedule", decay_schedule="cosine", weight_decay=0.01),
    "adam": dict(weight_decay=0.01),
    "sgd": dict(nesterov=True, decay="constant"),
    "lion": dict(decay_schedule="lr"),
    "muon": {},
    "adafactor": dict(adafactor_min_dim=8),
}


def points_of(kind):
    """16 points of which no two have a schedule, a decay or a threshold in common."""
    kinds = itertools.cycle(["constant", "cosine", "wsd"])
    return [
        {
            "schedule.kind": next(kinds),
            "schedule.peak_lr": 1e-3 * (i + 1),
            "schedule.warmup_steps": float(i % 5),
            "optimizer.weight_decay": 0.01 * (i + 1),
            "optimizer.clip_norm": 0.1 * (i + 1),
            "optimizer.clip_value": 0.02 * (i + 1),
            "optimizer.clip_role": 0.05 * (i + 1),
            "optimizer.clip_role_query": 0.01 * (i + 1),
            **({"optimizer.weight_decay_end": 0.02 * (i + 1)} if kind == "adamw" else {}),
        }
        for i in range(MEMBERS)
    ]


@pytest.fixture
def prepared(config, batches):
    """A function from a kind to (task, rows of points and seeds, training of those rows)."""

    def make(kind, task=LanguageModel):
        run = replace(config, optimizer=OptimizerConfig(kind=kind, **EXTRA[kind]))
        names = tuple(points_of(kind)[0])
        task = task(MODEL, run.optimizer, unroll=True, diagnose_every=2)

        def rows(points, seeds):
            count = len(points)
            values = hyperparams.lower(run, names, points)
            return make_rows(values, seeds, steps=[STEPS] * count, newborn=[True] * count)

        def trained(engine, rows):
            population, metrics = engine.train(born(engine, rows), rows, batches)
            return jax.device_get(population), jax.device_get(metrics)

        return task, rows, trained

    return make


@pytest.fixture
def compilations():
    """JAX's own compile events of engines; weights that all tests share are drawn before."""
    drawn()
    with counted() as events:
        yield events


def test_sixteen_members_compile_once_and_each_equals_its_solo_run(prepared, compilations):
    task, rows, trained = prepared("adamw", Regression)
    points = points_of("adamw")
    engine, alone = make_engine(task, members=MEMBERS), make_engine(task, members=1)
    population, metrics = trained(engine, rows(points, range(MEMBERS)))
    assert len(compilations) == 2, "assemble and train"
    trained(engine, rows(points[::-1], range(MEMBERS)))
    for place in range(MEMBERS):
        member, curves = trained(alone, rows([points[place]], [place]))
        assert_equal_bits(row(member, 0), row(population, place))
        assert_equal_bits(row(curves, 0), row(metrics, place))
    assert len(compilations) == 4, "the same two for a population of one"
    kernels = population.params["blocks"]["mlp"]["up"]["kernel"][:MEMBERS]
    assert len({float(np.sum(np.square(kernel))) for kernel in kernels}) == MEMBERS
    assert np.isfinite(metrics["loss"][:MEMBERS]).all()


@pytest.mark.parametrize("kind", [kind for kind in EXTRA if kind != "adamw"])
def test_a_member_of_every_optimizer_equals_its_solo_run(prepared, kind):
    task, rows, trained = prepared(kind, Regression)
    points = points_of(kind)[:3]
    engine = make_engine(task, members=3)  # as large as one of a single member, which is padded
    assert engine.size == make_engine(task, members=1).size
    population, metrics = trained(engine, rows(points, range(3)))
    member, curves = trained(engine, rows([points[2]], [2]))
    assert_equal_bits(row(member, 0), row(population, 2))
    assert_equal_bits(row(curves, 0), row(metrics, 2))
    assert np.isfinite(metrics["loss"][:3]).all()


def test_a_members_bytes_are_those_of_its_state(config, lower):
    from jaxhpo.population.memory import member_bytes

    for kind, dtype in itertools.product(EXTRA, ("float32", "bfloat16")):
        optimizer = OptimizerConfig(kind=kind, moment_dtype=dtype, **EXTRA[kind])
        model = replace(MODEL, param_dtype=dtype)
        here = replace(config, optimizer=optimizer, model=model)
        engine = make_engine(LanguageModel(model, optimizer), members=2)
        rows = make_rows(hyperparams.lower(here, (), [{}] * 2), [0, 1], [0, 0])
        state = jax.tree.leaves(engine.abstract(rows))
        size = sum(leaf.size * leaf.dtype.itemsize for leaf in state)
        assert size == engine.size * member_bytes(model, optimizer), (kind, dtype)
