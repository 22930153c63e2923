"""One tiny language model and one engine, compiled once for all tests of the room."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxhpo import nn
from jaxhpo.nn.config import DropoutConfig, ModelConfig
from jaxhpo.population import hyperparams
from jaxhpo.population.engine import Engine
from jaxhpo.population.mesh import make_mesh
from jaxhpo.population.rows import make_rows
from jaxhpo.population.task import LanguageModel

MEMBERS, STEPS, BATCH, EVALS = 4, 6, 4, 2
MODEL = ModelConfig(num_layers=2, d_model=16, num_heads=2, context=8, vocab_size=32)
SPACE = ("schedule.peak_lr", "dropout.residual", "optimizer.clip_norm")


class Drawn(LanguageModel):
    """A language model whose first weights are one draw, scaled by a number of the trial's own.

    What the engine promises holds for any task, and a third of `assemble` is what the drawing of
    every tensor takes to compile.
    """

    def init(self, key, hyperparams):
        scale = jax.random.uniform(key, minval=0.5, maxval=1.5)
        return jax.tree.map(lambda x: x * scale, drawn())


@functools.cache
def drawn():
    with jax.ensure_compile_time_eval():
        return jax.device_get(nn.init(MODEL, jax.random.key(0)))


class Regression(Drawn):
    """The same parameters in a sum of squares: of its program only the optimizer is large."""

    def loss(self, params, batch, hyperparams, key):
        target = 0.01 * batch["tokens"].mean()
        return sum(jnp.mean((leaf - target) ** 2) for leaf in jax.tree.leaves(params))


@pytest.fixture(scope="session")
def config():
    from jaxhpo.config.run import TrainRun
    from jaxhpo.schedules.config import ScheduleConfig

    schedule = ScheduleConfig(peak_lr=0.01, warmup_steps=2)
    return TrainRun(model=MODEL, schedule=schedule, dropout=DropoutConfig(residual=0.1), steps=60)


@pytest.fixture(scope="session")
def lower(config):
    return lambda points: hyperparams.lower(config, SPACE, points)


@pytest.fixture(scope="session")
def task(config):
    return Drawn(MODEL, config.optimizer, unroll=True)


def make_engine(task, devices=2, members=MEMBERS, chunk=1, accumulate=1, axes=None):
    """`axes` are those of the mesh; without them members alone share the devices."""
    return Engine(
        task, make_mesh(axes or devices), members, run_seed=7, chunk=chunk, accumulate=accumulate
    )


@pytest.fixture(scope="session")
def engine(task):
    return make_engine(task)


@pytest.fixture(scope="session")
def batches():
    rng = np.random.default_rng(0)
    walk = np.cumsum(rng.integers(0, 3, (1, STEPS, BATCH, MODEL.context + 1)), -1)
    return {"tokens": (walk % MODEL.vocab_size).astype(np.int32)}


@pytest.fixture(scope="session")
def held_out(batches):
    return {"tokens": batches["tokens"][0, :EVALS]}


@pytest.fixture(scope="session")
def points():
    return [
        {"schedule.peak_lr": lr, "dropout.residual": rate, "optimizer.clip_norm": clip}
        for lr, rate, clip in [
            (0.01, 0.1, 1.0),
            (0.02, 0.2, 0.5),
            (0.005, 0.0, 2.0),
            (0.03, 0.3, 9.0),
        ]
    ]


@pytest.fixture(scope="session")
def newborn_rows(lower, points):
    def make(points=points, **changes):
        count = len(points)
        given = dict(seeds=range(count), steps=[STEPS] * count, newborn=[True] * count)
        return make_rows(lower(points), **{**given, **changes})

    return make


def born(engine, rows):
    return engine.assemble(engine.empty(rows), rows)


def row(tree, place):
    """One member as host arrays."""
    return jax.tree.map(lambda x: np.asarray(x)[place], tree)


def assert_equal_bits(found, expected):
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(
            np.atleast_1d(a).view(np.uint8), np.atleast_1d(b).view(np.uint8)
        ),
        found,
        expected,
    )


def differ(a, b):
    """Whether any leaf differs."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return any(not np.array_equal(x, y, equal_nan=True) for x, y in pairs)
