"""Weight decay: the published vectors, one trajectory in every convention, and who is spared."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxhpo import optimizers, schedules
from jaxhpo.errors import UsageError
from jaxhpo.optimizers import OptimizerConfig
from jaxhpo.optimizers.masks import decay_shares, named, renamed
from jaxhpo.schedules import ScheduleConfig
from tests.optimizers.conftest import (
    CONSTANT,
    RATE,
    SHAPES,
    assert_close,
    reference,
    run,
    small_case,
)

INF = float("inf")
WARMED = ScheduleConfig(kind="cosine", peak_lr=RATE, warmup_steps=2)
PUBLISHED = dict(beta2=0.999, clip_norm=INF)
START = {"w": jnp.array([1.0, -2.0, 0.5])}
GRADIENTS = [{"w": k * jnp.array([0.1, 0.2, -0.3])} for k in (1, 2, 3)]


def path_of(schedule=CONSTANT, steps=100, start=START, gradients=GRADIENTS, **values):
    """The weight after each update."""
    config = OptimizerConfig(**{**PUBLISHED, **values})
    updates, _ = run(config, start, gradients, schedule, steps)
    return start["w"] + np.cumsum([update["w"] for update in updates], 0)


def test_adam_with_l2_passes_through_the_published_vectors():
    path = path_of(kind="adam", weight_decay=0.1)
    np.testing.assert_allclose(path[0], [0.9900000005, -2.0, 0.5099999996], rtol=1e-6)
    np.testing.assert_allclose(path[2], [0.9702142067, -2.0157287973, 0.5290318561], rtol=1e-6)


def test_decay_by_the_shape_passes_through_adamws_vectors_with_a_coefficient_times_the_peak():
    path = path_of(decay="schedule", weight_decay=0.001)
    np.testing.assert_allclose(path[0], [0.989, -2.008, 0.5095], rtol=1e-6)
    np.testing.assert_allclose(path[2], [0.9678008104, -2.0232081877, 0.5277036895], rtol=1e-6)


def test_decay_alone_follows_the_warmup():
    schedule = ScheduleConfig(kind="constant", peak_lr=1e-2, warmup_steps=2)
    still = [{"w": jnp.zeros(1)}] * 3
    path = path_of(schedule, start={"w": jnp.ones(1)}, gradients=still, weight_decay=0.1)
    np.testing.assert_allclose(np.ravel(path), [1.0, 0.9995, 0.9985005], rtol=1e-7)


def mask(tree, spared):
    kept = {name: not any(word in name for word in spared) for name in named(tree)}
    return renamed(kept, tree)


SPARED = {True: ("norm", "bias"), False: ("norm", "bias", "embed/", "positions/")}
ADAMW = {
    embeddings: reference(
        lambda decay, beta2, spared=spared: optax.adamw(
            RATE, 0.9, beta2, weight_decay=decay, mask=lambda tree: mask(tree, spared)
        )
    )
    for embeddings, spared in SPARED.items()
}


@settings(max_examples=25, deadline=None)
@given(
    decay=st.floats(0.01, 1),
    beta2=st.floats(0.5, 0.999),
    embeddings=st.booleans(),
    seed=st.integers(0, 999),
)
def test_decoupled_decay_equals_optax_under_a_mask(decay, beta2, embeddings, seed):
    config = OptimizerConfig(
        weight_decay=decay, beta2=beta2, clip_norm=INF, decay_embeddings=embeddings
    )
    case = small_case(seed)
    assert_close(run(config, *case)[0], ADAMW[embeddings]([decay, beta2], *case))


CONVERSIONS = [
    ("adamw", "lr", "schedule", WARMED),
    ("lion", "schedule", "lr", WARMED),
    ("muon", "lr", "constant", CONSTANT),
    ("adamw", "constant", "schedule", CONSTANT),
    ("sgd", "l2", "lr", WARMED),
    ("sgd", "lr", "l2", WARMED),
    ("sgd", "l2", "schedule", WARMED),
    ("sgd", "constant", "l2", CONSTANT),
]


@pytest.mark.parametrize("shape", ["constant", "cosine"])
@pytest.mark.parametrize(("kind", "before", "after", "schedule"), CONVERSIONS)
def test_a_converted_decay_gives_the_same_trajectory(kind, before, after, schedule, shape):
    coefficient = 0.02 if before in ("constant", "schedule") else 2.0
    config = OptimizerConfig(
        kind=kind,
        decay=before,
        weight_decay=coefficient,
        weight_decay_end=coefficient / 2,
        decay_schedule=shape,
        momentum=0.0 if kind == "sgd" else None,
    )
    rate = RATE if schedule is CONSTANT else None
    other = optimizers.convert_decay(config, after, peak_lr=RATE, rate=rate)
    assert other.convention == after != before
    found, expected = (run(each, *small_case(0), schedule, 3)[0] for each in (other, config))
    assert_close(found, expected, 2e-6)
    without = run(replace(config, weight_decay=0.0), *small_case(0), schedule, 3)[0]
    kernel = lambda updates: updates[-1]["blocks"]["mlp"]["down"]["kernel"]
    assert np.abs(kernel(found) - kernel(without)).max() > 1e-3, "nothing decays"


@pytest.mark.parametrize(
    ("values", "after", "rate", "said"),
    [
        ({"kind": "adam"}, "lr", None, "only for sgd without momentum"),
        ({"kind": "sgd"}, "lr", None, "only for sgd without momentum"),
        ({}, "constant", None, "give it"),
    ],
)
def test_what_has_no_equal_is_not_converted(values, after, rate, said):
    with pytest.raises(UsageError, match=said):
        optimizers.convert_decay(OptimizerConfig(**values), after, peak_lr=RATE, rate=rate)


def test_adamc_shrinks_by_the_square_of_the_rate():
    still = [{"w": jnp.zeros(1)}] * 6
    start = {"w": jnp.ones(1)}
    values = dict(weight_decay=0.5, decay_schedule="lr")
    path = np.ravel(path_of(WARMED, 6, start, still, **values))
    rates = np.array([float(schedules.lower(WARMED, 6)(step)) for step in range(6)])
    np.testing.assert_allclose(path, np.cumprod(1 - 0.5 * rates**2 / RATE), rtol=1e-6)


@pytest.mark.parametrize(("shape", "middle"), [("linear", 0.3), ("cosine", 0.3)])
def test_a_decay_moves_to_its_end_over_the_run(shape, middle):
    still = [{"w": jnp.zeros(1)}] * 5
    values = dict(decay="constant", weight_decay=0.2, weight_decay_end=0.4, decay_schedule=shape)
    path = np.ravel(path_of(CONSTANT, 4, {"w": jnp.ones(1)}, still, **values))
    shrunk = 1 - path / np.concatenate([[1.0], path[:-1]])
    np.testing.assert_allclose(shrunk[[0, 2, 4]], [0.2, middle, 0.4], rtol=1e-5)
    quarter = 0.25 if shape == "linear" else np.sin(np.pi / 8) ** 2
    np.testing.assert_allclose(shrunk[1], 0.2 + 0.2 * quarter, rtol=1e-5)


def test_norms_and_biases_are_spared_and_rules_of_the_user_come_first():
    plain = decay_shares(OptimizerConfig(), SHAPES)
    spared = {name for name, share in plain.items() if not share}
    assert spared == {name for name in SHAPES if "norm" in name or "bias" in name}
    rules = ("mlp/down/kernel=0.5", "final_norm/scale=1")
    shares = decay_shares(OptimizerConfig(decay_rules=rules, decay_embeddings=False), SHAPES)
    changed = {name: share for name, share in shares.items() if share != plain[name]}
    assert changed == {
        "blocks/mlp/down/kernel": 0.5,
        "final_norm/scale": 1.0,
        "embed/embedding": 0.0,
        "positions/embedding": 0.0,
    }


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (("mpl/down=0",), "'mpl/down=0' matches no parameter; there are embed/embedding"),
        (("mlp/down=0", "kernel=1"), "'mlp/down=0' and 'kernel=1' both match blocks/mlp/down"),
    ],
)
def test_a_rule_that_matches_nothing_or_overlaps_is_refused(rules, said):
    with pytest.raises(UsageError, match=said):
        decay_shares(OptimizerConfig(decay_rules=rules), SHAPES)


@pytest.mark.parametrize("rule", ["mlp", "mlp=", "=1", "mlp=-1", "mlp=many", "(=1", "mlp=nan"])
def test_what_is_no_rule_is_refused(rule):
    with pytest.raises(UsageError, match="allowed: PATTERN=SHARE"):
        OptimizerConfig(decay_rules=(rule,))
