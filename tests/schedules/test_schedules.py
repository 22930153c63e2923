"""Schedules equal the closed forms and optax, and are data."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxhpo import schedules
from jaxhpo.errors import UsageError
from jaxhpo.schedules import Cooled, Phase, ScheduleConfig, pack
from jaxhpo.schedules.phases import SHAPES

STEPS = 1000
COSINE = ScheduleConfig(kind="cosine", peak_lr=1e-3, warmup_steps=100, floor=0.1)


def rates(schedule, steps):
    return np.asarray(jax.vmap(schedule)(jnp.asarray(steps)))


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 0.0),
        (50, 5e-4),
        (100, 1e-3),
        (325, 8.681980515339464e-4),
        (550, 5.5e-4),
        (775, 2.3180194846605365e-4),
        (1000, 1e-4),
        (5000, 1e-4),
    ],
)
def test_cosine_equals_its_closed_form(step, expected):
    found = schedules.lower(COSINE, STEPS)(step)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_cosine_equals_optax_at_every_step():
    steps = np.arange(STEPS + 50)
    with jax.enable_x64(True):  # optax's own float32 loses digits where the cosine nears its floor
        reference = optax.warmup_cosine_decay_schedule(0.0, 1e-3, 100, STEPS, 1e-4)
        expected = np.asarray(jax.vmap(reference)(jnp.asarray(steps, jnp.float64)))
    found = rates(schedules.lower(COSINE, STEPS), steps)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_wsd_equals_optax_pieces_joined():
    config = ScheduleConfig(peak_lr=0.02, warmup_steps=30, decay_steps=200, floor=0.05)
    steps = np.arange(STEPS + 50)
    with jax.enable_x64(True):
        reference = optax.join_schedules(
            [
                optax.linear_schedule(0.0, 0.02, 30),
                optax.constant_schedule(0.02),
                optax.linear_schedule(0.02, 0.001, 200),
            ],
            [30, 800],
        )
        expected = np.asarray(jax.vmap(reference)(jnp.asarray(steps, jnp.float64)))
    np.testing.assert_allclose(rates(schedules.lower(config, STEPS), steps), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("shape", "quarter", "half", "three"),
    [
        ("linear", 0.775, 0.55, 0.325),
        ("cosine", 0.8681980515339464, 0.55, 0.23180194846605365),
        ("1-sqrt", 0.55, 0.36360389693210715, 0.22057713659400527),
    ],
)
def test_decay_shapes_pass_through_the_published_points(shape, quarter, half, three):
    schedule = pack([Phase(shape, 100.0, 1.0, 0.1)], 3)
    np.testing.assert_allclose(rates(schedule, [25, 50, 75]), [quarter, half, three], rtol=1e-6)


@pytest.mark.parametrize("kind", schedules.KINDS)
def test_every_kind_warms_up_reaches_its_peak_and_holds_its_floor(kind):
    config = ScheduleConfig(kind=kind, peak_lr=0.01, warmup_steps=20, floor=0.1)
    found = rates(schedules.lower(config, 200), np.arange(400))
    assert found[0] == 0 and np.all(np.diff(found[:21]) > 0)
    np.testing.assert_allclose(found.max(), 0.01, rtol=1e-6)
    last = 0.01 if kind == "constant" else 0.001
    np.testing.assert_allclose(found[200:], last, rtol=1e-6)
    assert np.abs(np.diff(found)).max() <= 0.01 / 20 * 1.001, "a jump"


@pytest.mark.parametrize("shape", SHAPES)
def test_a_phase_ends_where_it_says(shape):
    schedule = pack([Phase(shape, 10.0, 1.0, 0.25), Phase("hold", 5.0, 0.25, 0.25)], 4)
    np.testing.assert_allclose(rates(schedule, [10, 12, 99]), 0.25)


def test_schedules_of_different_kinds_stack_and_vmap():
    configs = [ScheduleConfig(kind=kind, peak_lr=0.01) for kind in schedules.KINDS]
    each = [schedules.lower(config, 300) for config in configs]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *each)
    together = jax.jit(jax.vmap(lambda schedule, step: schedule(step), (0, None)))
    for step in (0, 10, 100, 299, 301):
        alone = [schedule(step) for schedule in each]
        np.testing.assert_allclose(together(stacked, step), alone, rtol=1e-6)


def test_cool_down_starts_at_the_schedules_rate_and_reaches_zero():
    schedule = schedules.lower(ScheduleConfig(peak_lr=0.01), STEPS)
    cooled = Cooled(schedule, jnp.int32(400), jnp.int32(10))
    np.testing.assert_allclose(cooled(400), schedule(400))
    np.testing.assert_allclose(cooled(405), schedule(405) / 2, rtol=1e-6)
    assert cooled(410) == 0


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"peak_lr": -1.0}, "schedule.peak_lr=-1.0"),
        ({"peak_lr": float("nan")}, "schedule.peak_lr=nan"),
        ({"floor": 1.5}, "schedule.floor=1.5"),
        ({"warmup_steps": -3.0}, "schedule.warmup_steps=-3.0"),
        ({"warmup_steps": 2000.0}, "schedule.warmup_steps=2000"),
        ({"decay_start": 10.0}, "schedule.decay_start=10"),
    ],
)
def test_numbers_that_do_not_fit_are_refused_by_name(values, named):
    with pytest.raises(UsageError, match=named):
        schedules.lower(ScheduleConfig(**values), STEPS)
