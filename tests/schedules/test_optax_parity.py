"""Every schedule that optax has, from our constructors, over random settings.

optax is computed in float64: its own float32 loses digits where a cosine nears its floor.
"""

import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxhpo import schedules
from jaxhpo.schedules import Phase
from jaxhpo.schedules.phases import FOREVER

lengths = st.integers(1, 400)
values = st.floats(1e-5, 1.0)
shares = st.floats(1e-3, 1.0)
# XLA's 49 / 49 is 2e-16 short of one, of which a lower power makes more than a millionth
powers = st.floats(0.5, 4.0)


def constant(draw):
    value = draw(values)
    return schedules.constant(value), lambda step: optax.constant_schedule(value)(step) + 0 * step


def polynomial(draw):
    begin, end, power, steps, start = map(draw, (values, values, powers, lengths, lengths))
    rows = [Phase("hold", start, begin, begin), Phase("polynomial", steps, begin, end, power)]
    reference = optax.polynomial_schedule(begin, end, power, steps, start)
    return schedules.sequence(rows), reference


def linear(draw):
    begin, end, steps, start = map(draw, (values, values, lengths, lengths))
    rows = [Phase("hold", start, begin, begin), Phase("linear", steps, begin, end)]
    return schedules.sequence(rows), optax.linear_schedule(begin, end, steps, start)


def piecewise_constant(draw):
    value, at = draw(values), sorted(draw(st.sets(lengths, min_size=1, max_size=5)))
    factors = draw(st.lists(st.floats(0.1, 2.0), min_size=len(at), max_size=len(at)))
    reference = optax.piecewise_constant_schedule(value, dict(zip(at, factors, strict=True)))
    return schedules.multi_step(value, at, factors), reference


def exponential(draw):
    value, steps, rate, start = map(draw, (values, lengths, st.floats(0.2, 0.99), lengths))
    low = draw(st.none() | st.floats(0.05, 0.9))
    rows = [
        Phase("hold", start, value, value),
        Phase("exponential", FOREVER, value, (low or 0.0) * value, _half_life(steps, rate)),
    ]
    end = None if low is None else low * value
    reference = optax.exponential_decay(value, steps, rate, start, end_value=end)
    return schedules.sequence(rows), reference


def staircase(draw):
    # powers of two, for with XLA's 49 / 49 theirs drops a step late
    steps = draw(st.sampled_from([16, 32, 64, 128]))
    value, rate = draw(values), draw(st.floats(0.2, 0.99))
    at = [steps * i for i in range(1, 60)]
    reference = optax.exponential_decay(value, steps, rate, staircase=True)
    return schedules.multi_step(value, at, rate), reference


def cosine(draw):
    value, steps, floor, power = map(draw, (values, lengths, st.floats(0, 1), powers))
    reference = optax.cosine_decay_schedule(value, steps, floor, power)
    return schedules.cosine(value, steps, floor=floor, power=power), reference


def piecewise_interpolate(draw):
    value, at = draw(values), sorted(draw(st.sets(lengths, min_size=1, max_size=5)))
    factors = draw(st.lists(st.floats(0.1, 2.0), min_size=len(at), max_size=len(at)))
    shape = draw(st.sampled_from(["linear", "cosine"]))
    pairs = dict(zip(at, factors, strict=True))
    reference = optax.piecewise_interpolate_schedule(shape, value, pairs)
    rows, before = [], 0
    for step, factor in pairs.items():
        rows.append(Phase(shape, step - before, value, value * factor))
        before, value = step, value * factor
    return schedules.sequence(rows), reference


def linear_onecycle(draw):
    steps, peak = draw(st.integers(50, 400)), draw(values)
    rise, fall = int(0.3 * steps), int(0.85 * steps)
    rows = [
        Phase("linear", rise, peak / 25, peak),
        Phase("linear", fall - rise, peak, peak / 25),
        Phase("linear", steps - fall, peak / 25, peak / 25 / 1e4),
    ]
    return schedules.sequence(rows), optax.linear_onecycle_schedule(steps, peak)


def cosine_onecycle(draw):
    steps, peak = draw(st.integers(50, 400)), draw(values)
    rise = int(0.3 * steps)
    rows = [
        Phase("cosine", rise, peak / 25, peak),
        Phase("cosine", steps - rise, peak, peak / (25 * 1e4)),
    ]
    return schedules.sequence(rows), optax.cosine_onecycle_schedule(steps, peak)


def warmup_constant(draw):
    peak, share, steps = map(draw, (values, shares, lengths))
    reference = optax.warmup_constant_schedule(share * peak, peak, steps)
    return schedules.constant(peak, steps, share), reference


def warmup_cosine(draw):
    peak, share, warm, steps, floor, power = map(
        draw, (values, shares, lengths, lengths, shares, powers)
    )
    reference = optax.warmup_cosine_decay_schedule(
        share * peak, peak, warm, warm + steps, floor * peak, power
    )
    return schedules.cosine(peak, steps, warm, floor, power, share), reference


def warmup_exponential(draw):
    peak, warm, steps, rate, floor = map(
        draw, (values, lengths, lengths, st.floats(0.2, 0.99), st.floats(0.05, 0.9))
    )
    half_life = _half_life(steps, rate)
    ours = schedules.wsd(peak, 0.0, FOREVER, warm, "exponential", floor=floor, half_life=half_life)
    reference = optax.warmup_exponential_decay_schedule(
        0.0, peak, warm, steps, rate, end_value=floor * peak
    )
    return ours, reference


def warm_restarts(draw):
    rows, cycles = [], []
    for _ in range(draw(st.integers(1, 6))):
        low, peak, end = map(draw, (values, values, values))
        warm, steps = draw(st.integers(1, 40)), draw(st.integers(1, 60))
        rows += [Phase("linear", warm, low, peak), Phase("cosine", steps, peak, end)]
        cycles.append(
            {
                "init_value": low,
                "peak_value": peak,
                "warmup_steps": warm,
                "decay_steps": warm + steps,
                "end_value": end,
            }
        )
    return schedules.sequence(rows), optax.sgdr_schedule(cycles)


CASES = {
    "constant_schedule": constant,
    "polynomial_schedule": polynomial,
    "linear_schedule": linear,
    "piecewise_constant_schedule": piecewise_constant,
    "exponential_decay": exponential,
    "exponential_decay in a staircase": staircase,
    "cosine_decay_schedule": cosine,
    "piecewise_interpolate_schedule": piecewise_interpolate,
    "linear_onecycle_schedule": linear_onecycle,
    "cosine_onecycle_schedule": cosine_onecycle,
    "warmup_constant_schedule": warmup_constant,
    "warmup_cosine_decay_schedule": warmup_cosine,
    "warmup_exponential_decay_schedule": warmup_exponential,
    "sgdr_schedule": warm_restarts,
}


def _half_life(steps, rate):
    return steps * math.log(0.5) / math.log(rate)


def test_no_schedule_of_optax_is_left_out():
    theirs = {
        name
        for name, found in inspect.getmembers(optax.schedules, inspect.isfunction)
        if found.__module__ == "optax.schedules._schedule"
    }
    assert theirs <= set(CASES)


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_rates_equal_optax(name, data):
    ours, reference = CASES[name](data.draw)
    edges = [int(start) + d for start in ours.start for d in (-1, 0, 1)]
    steps = np.clip([*np.linspace(0, 900, 60).astype(int), *(edges * 6)[:60]], 0, 10**6)
    with jax.enable_x64(True):
        expected = np.asarray(jax.vmap(reference)(jnp.asarray(steps, jnp.float64)))
    # what is left of a rate below a ten-millionth of its peak counts as zero
    np.testing.assert_allclose(ours(np.float32(steps)), expected, rtol=1e-6, atol=1e-12)


def test_schedules_join_like_any_other():
    ours = optax.join_schedules(
        [schedules.linear(1.0, 10.0), schedules.cosine(0.5, 20.0)], boundaries=[10]
    )
    np.testing.assert_allclose([ours(5), ours(10), ours(20)], [0.5, 0.5, 0.25], rtol=1e-6)
