"""Schedules equal the closed forms and optax, and are data."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxhpo import schedules
from jaxhpo.errors import UsageError
from jaxhpo.schedules import Cooled, Phase, ScheduleConfig, pack
from jaxhpo.schedules.shapes import SHAPES

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


@pytest.mark.parametrize("shape", SHAPES)
def test_a_phase_ends_where_it_says(shape):
    schedule = pack([Phase(shape, 10.0, 1.0, 0.25), Phase("hold", 5.0, 0.25, 0.25)], 4)
    np.testing.assert_allclose(rates(schedule, [10, 12, 99]), 0.25)


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
        ({"decay_start": 5000.0}, "schedule.decay_start=5000 is after the run: steps=1000"),
        ({"warmup_from": -0.5}, "schedule.warmup_from=-0.5 is a share of the peak"),
        ({"decay_shape": "inverse"}, "schedule.floor=0 with decay_shape=inverse; allowed: above 0"),
        ({"decay_shape": "geometric"}, "schedule.floor=0 with decay_shape=geometric"),
        ({"decay_shape": "exponential"}, "schedule.half_life is missing"),
        ({"decay_shape": "exponential", "half_life": 0.0}, "schedule.half_life=0; allowed: a num"),
        ({"kind": "polynomial", "power": 0.0}, "schedule.power=0; allowed: a number above 0"),
        ({"kind": "noam", "warmup_steps": 0.0}, "schedule.warmup_steps=0 with kind=noam"),
        ({"kind": "inverse_sqrt", "timescale": 0.0}, "schedule.timescale=0; allowed: a number"),
        (
            {"kind": "cyclic_wsd", "cycle_steps": 300.0},
            "cycle_steps=300 does not fill steps=1000 with whole cycles; the nearest that do: "
            "333.333 or 250",
        ),
        (
            {"kind": "cyclic_wsd", "cycle_steps": (400.0, 500.0)},
            "cycle_steps=400, 500 add up to 900, not to steps=1000",
        ),
        ({"kind": "cyclic_cosine", "cycle_steps": 1.0}, "cycle_steps=1 gives more than 64 cycles"),
        ({"kind": "cyclic_wsd", "cycle_steps": 0.0}, "schedule.cycle_steps=0; allowed: a number"),
        (
            {"kind": "cyclic_wsd", "cycle_steps": (500.0, 500.0), "cycle_growth": 2.0},
            "cycle_growth=2 with a length for each cycle",
        ),
        (
            {"kind": "cyclic_wsd", "cycle_steps": 250.0, "warmup_steps": 240.0},
            "schedule.cycle_steps: cycle 1 has 250, its warm-up and decay take 265",
        ),
        (
            {"kind": "cyclic_cosine", "cycle_peak": 0.5, "floor": 0.2},
            "schedule.floor=0.2 is above the peak of cycle 4, which with cycle_peak=0.5 is 0.125",
        ),
        ({"kind": "cyclic_wsd", "cycle_decay": 1.5}, "schedule.cycle_decay=1.5 is a share"),
        (
            {"kind": "multi_step", "milestones": (500.0, 400.0)},
            "milestones=500, 400; allowed: ",
        ),
        ({"kind": "multi_step", "milestones": (10.0,)}, "milestones: 10 comes before 50, the end"),
        ({"kind": "multi_step", "milestones": (2000.0,)}, "milestones: 2000 is after the run"),
        ({"kind": "sequence"}, "schedule.phases are missing; kind=sequence needs some"),
        ({"kind": "sequence", "phases": ("fall 10 to 0",)}, "'fall 10 to 0' has no known shape"),
        ({"kind": "sequence", "phases": ("linear 10",)}, "'linear 10' does not say where it ends"),
        ({"kind": "sequence", "phases": ("linear ten to 0",)}, "schedule.phases 'linear ten to 0'"),
        ({"kind": "sequence", "phases": ("linear -5 to 0",)}, "schedule.phases 'linear -5 to 0'"),
        ({"kind": "sequence", "phases": ("linear 5 5 to 0",)}, "schedule.phases 'linear 5 5 to 0'"),
        ({"kind": "sequence", "phases": ("hold 5 to 0.1",)}, "a hold has one rate"),
        ({"kind": "sequence", "phases": ("exponential 9",)}, "needs half_life"),
        ({"kind": "sequence", "phases": ("linear 5 to 0", "inverse 9 to 1")}, "begin and end of"),
    ],
)
def test_numbers_that_do_not_fit_are_refused_by_name(values, named):
    with pytest.raises(UsageError, match=named) as refused:
        schedules.lower(ScheduleConfig(**values), STEPS)
    line = str(refused.value)
    assert line.startswith("schedule.") and "\n" not in line and len(line) < 180


def test_constructors_refuse_plain_numbers_by_name_and_let_traced_ones_pass():
    for build, named in [
        (lambda x: schedules.wsd(1.0, 10.0, x), "decay_steps=-1"),
        (lambda x: schedules.cosine(x, 10.0), "peak_lr=-1"),
        (lambda x: schedules.sequence([Phase("linear", x, 0.0, 1.0)]), "length of linear=-1"),
    ]:
        with pytest.raises(UsageError, match=named):
            build(-1.0)
        jax.eval_shape(lambda x, build=build: build(x)(3), jnp.float32(-1.0))


def test_a_sequence_takes_up_where_the_phase_before_ended():
    phases = ("hold 10", "exponential 20 half_life 10", "hold 5", "linear 10 from 0.5 to 0")
    config = ScheduleConfig(kind="sequence", peak_lr=1.0, warmup_steps=0.0, phases=phases)
    found = schedules.lower(config, 100)(np.array([5, 20, 30, 34, 35, 40, 45, 99]))
    np.testing.assert_allclose(found, [1, 0.5, 0.25, 0.25, 0.5, 0.25, 0, 0], rtol=1e-6)


def test_a_scaled_schedule_is_the_same_curve():
    shares = np.linspace(0, 1, 41)
    for more in (
        {"kind": "cyclic_wsd", "cycle_steps": (400.0, 600.0), "rewarmup_steps": 20.0},
        {"kind": "multi_step", "milestones": (300.0, 610.0)},
        {"kind": "wsd", "decay_shape": "exponential", "half_life": 30.0, "decay_steps": 200.0},
        {"kind": "inverse_sqrt", "timescale": 60.0},
        {
            "kind": "sequence",
            "phases": ("hold 99", "inverse_sqrt 300 timescale 7", "linear 9 to 0"),
        },
    ):
        config = ScheduleConfig(**more)
        whole = schedules.lower(config, 1000)(shares * 1000)
        scaled = schedules.lower(config.scaled(3.0, 2.0), 1500)(shares * 1500)
        np.testing.assert_allclose(scaled, whole, rtol=2e-5)  # lengths are rounded to float32
