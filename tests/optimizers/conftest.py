"""A small transformer's parameters, stacked by layer and not, and a stretch of updates."""

import functools
from dataclasses import fields, replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxhpo import nn, optimizers, schedules
from jaxhpo.optimizers.config import TRACED, OptimizerConfig
from jaxhpo.schedules import ScheduleConfig

LAYERS, RATE = 3, 1e-2
CONSTANT = ScheduleConfig(kind="constant", peak_lr=RATE, warmup_steps=0)
MODEL = nn.ModelConfig(
    num_layers=LAYERS,
    d_model=8,
    num_heads=2,
    num_kv_heads=1,
    vocab_size=11,
    context=5,
    norm="layer",
    bias=True,
    position="learned",
    activation="swiglu",
    tie_embeddings=False,
    qk_norm=True,
)
SHAPES = nn.tensors(MODEL)
FEW = ("embed", "final_norm/scale", "query/", "attention_norm/scale", "mlp/down/kernel", "mlp/up/")
SMALL = {name: shape for name, shape in SHAPES.items() if any(word in name for word in FEW)}
"""Enough of it to have every kind of parameter."""


def nested(flat):
    tree = {}
    for path, value in flat.items():
        *folders, leaf = path.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[leaf] = value
    return tree


def draw(seed, scale=1.0, shapes=SHAPES):
    """Random values f32 for every parameter, as a nested tree."""
    rng = np.random.default_rng(seed)
    return nested({k: (scale * rng.normal(size=v)).astype(np.float32) for k, v in shapes.items()})


def unstacked(tree):
    """The same values with one subtree a layer."""
    apart = {name: value for name, value in tree.items() if name != "blocks"}
    layers = {f"layer{i}": jax.tree.map(lambda x, i=i: x[i], tree["blocks"]) for i in range(LAYERS)}
    return apart | layers


def numbers_of(config, schedule=CONSTANT, steps=100):
    numbers = optimizers.lower(config, peak_lr=schedule.peak_lr, steps=steps)
    return jax.tree.map(jnp.asarray, numbers)


def chain_of(config, schedule=CONSTANT, steps=100):
    return optimizers.build(
        config, numbers_of(config, schedule, steps), schedules.lower(schedule, steps)
    )


def run(config, params, gradients, schedule=CONSTANT, steps=100):
    """Updates of each step and the last parameters, compiled once for all numbers of a config."""
    static = replace(config, **DEFAULTS)
    step = compiled(static, optimizers.present(config))
    numbers = numbers_of(config, schedule, steps), schedules.lower(schedule, steps)
    return follow(lambda *args: step(*numbers, *args), chain_of(config).init, params, gradients)


DEFAULTS = {field.name: field.default for field in fields(OptimizerConfig) if field.name in TRACED}


@functools.cache
def compiled(static, present):
    """One step of a config with its numbers as arguments: one program for all of them."""

    @jax.jit
    def step(numbers, schedule, grads, state, params, count):
        return optimizers.build(static, numbers, schedule).update(grads, state, params, step=count)

    return step


def follow(step, init, params, gradients):
    state, path = init(params), []
    for count, grads in enumerate(gradients):
        updates, state = step(grads, state, params, count)
        params = optax.apply_updates(params, updates)
        path.append(jax.tree.map(np.asarray, updates))
    return path, jax.tree.map(np.asarray, params)


def reference(make, dtype="float64"):
    """Updates by an optax chain, its numbers traced; float64: what float32 is measured against."""

    @jax.jit
    def step(numbers, grads, state, params):
        return make(*numbers).update(grads, state, params)

    def updates(numbers, params, gradients):
        with jax.enable_x64(dtype == "float64"):
            cast = lambda tree: jax.tree.map(lambda x: jnp.asarray(np.asarray(x), dtype), tree)
            numbers = cast([np.float64(number) for number in numbers])
            first, grads = cast(params), [cast(each) for each in gradients]
            own = lambda *args: step(numbers, *args[:3])
            return follow(own, make(*numbers).init, first, grads)[0]

    return updates


def assert_close(found, expected, rtol=1e-6):
    """Equal to `rtol` of each tensor's largest entry."""
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=rtol * np.abs(b).max()),
        found,
        expected,
    )


def small_case(seed):
    """Parameters and three gradients of the SMALL tensors."""
    return draw(0, 1.0, SMALL), [draw(seed + i, 0.1, SMALL) for i in (1, 2, 3)]


@pytest.fixture(scope="session")
def params():
    return draw(0)


@pytest.fixture(scope="session")
def gradients():
    return [draw(seed, 0.1) for seed in (1, 2, 3)]
