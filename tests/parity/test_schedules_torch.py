"""Schedules against torch's warm restarts and transformers' functions, over random settings.

The references are computed in float64 by Python.
"""

import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxhpo import schedules
from jaxhpo.schedules import Phase

torch = pytest.importorskip("torch")
theirs = pytest.importorskip("transformers.optimization")

peaks = st.floats(1e-4, 1.0)
steps = st.integers(1, 300)
warmups = st.integers(0, 100)
ratios = st.floats(1e-3, 0.9)


def optimizer(peak):
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)


def rates_of(scheduler, at):
    """What a LambdaLR gives at each step."""
    (factor,), (peak,) = scheduler.lr_lambdas, scheduler.base_lrs
    return np.array([peak * factor(int(step)) for step in at])


def constant(draw, build):
    peak = draw(peaks)
    return schedules.constant(peak), build(optimizer(peak)), 100


def constant_with_warmup(draw, build):
    peak, warm = draw(peaks), draw(warmups)
    return schedules.constant(peak, warm), build(optimizer(peak), warm), warm


def linear(draw, build):
    peak, warm, length = draw(peaks), draw(warmups), draw(steps)
    total = warm + length
    return schedules.linear(peak, length, warm), build(optimizer(peak), warm, total), total


def waves(peak, length, half_waves, floor=0.0):
    """A cosine that goes down and up again, each half-wave a phase."""
    each = length / half_waves
    ends = [peak, floor * peak]
    return [Phase("cosine", each, ends[i % 2], ends[(i + 1) % 2]) for i in range(half_waves)]


def cosine(draw, build):
    peak, warm, half_waves = draw(peaks), draw(warmups), draw(st.integers(1, 7))
    length = half_waves * draw(st.integers(1, 50))  # a phase that begins between steps is rounded
    rows = [Phase("linear", warm, 0.0, peak), *waves(peak, length, half_waves)]
    reference = build(optimizer(peak), warm, warm + length, num_cycles=half_waves / 2)
    return schedules.sequence(rows), reference, warm + length


def cosine_with_restarts(draw, build):
    peak, warm, cycles = draw(peaks), draw(warmups), draw(st.integers(1, 8))
    each = draw(st.integers(1, 50))
    total = warm + cycles * each
    lengths = [warm + each, *[each] * (cycles - 1)]
    reference = build(optimizer(peak), warm, total, num_cycles=cycles)
    return schedules.cyclic_cosine(peak, lengths, warmup_steps=warm), reference, total


def cosine_with_min(draw, build):
    peak, warm, length, floor = draw(peaks), draw(warmups), draw(steps), draw(ratios)
    total = warm + length
    reference = build(optimizer(peak), warm, total, min_lr_rate=floor)
    return schedules.cosine(peak, length, warm, floor), reference, total


def cosine_with_both(draw, build):
    peak, warm, length, floor = draw(peaks), draw(st.integers(2, 90)), draw(steps), draw(ratios)
    begin = draw(st.none() | ratios)
    rows = [
        Phase("linear", warm - 1, peak * (1 / warm if begin is None else begin), peak),
        Phase("cosine", length, peak, floor * peak),
    ]
    total = warm + length
    reference = build(optimizer(peak), warm, total, min_lr_rate=floor, warmup_lr_rate=begin)
    return schedules.sequence(rows), reference, total - 1


def polynomial(draw, build):
    peak, warm, length = draw(peaks), draw(warmups), draw(steps)
    floor, power = draw(ratios), draw(st.floats(0.3, 4.0))
    total = warm + length
    reference = build(optimizer(peak), warm, total, lr_end=floor * peak, power=power)
    return schedules.polynomial(peak, length, power, warm, floor), reference, total


def inverse_sqrt(draw, build):
    peak, warm, timescale = draw(peaks), draw(warmups), draw(st.none() | st.integers(1, 500))
    reference = build(optimizer(peak), warm, timescale=timescale)
    return schedules.inverse_sqrt(peak, warm, timescale), reference, 10_000


def wsd(draw, build):
    peak, warm, stable = draw(peaks), draw(warmups), draw(steps)
    low = draw(st.just(0.0) | ratios)
    rise = draw(st.sampled_from(["linear", "cosine", "1-sqrt"]))
    fall = draw(st.sampled_from(["linear", "cosine", "1-sqrt"]))
    half_waves = draw(st.sampled_from([1, 3, 5])) if fall == "cosine" else 1
    length = half_waves * draw(st.integers(1, 60))
    # their 1-sqrt warm-up is one minus the root of what is left
    shape, bend = ("polynomial", 0.5) if rise == "1-sqrt" else (rise, 1.0)
    decay = [Phase(fall, length, peak, low * peak)]
    rows = [
        Phase(shape, warm, low * peak, peak, bend),
        Phase("hold", stable, peak, peak),
        *(waves(peak, length, half_waves, low) if fall == "cosine" else decay),
    ]
    reference = build(
        optimizer(peak),
        warm,
        length,
        num_stable_steps=stable,
        warmup_type=rise,
        decay_type=fall,
        min_lr_ratio=low,
        num_cycles=half_waves / 2,
    )
    return schedules.sequence(rows), reference, warm + stable + length


CASES = {
    "get_constant_schedule": constant,
    "get_constant_schedule_with_warmup": constant_with_warmup,
    "get_linear_schedule_with_warmup": linear,
    "get_cosine_schedule_with_warmup": cosine,
    "get_cosine_with_hard_restarts_schedule_with_warmup": cosine_with_restarts,
    "get_cosine_with_min_lr_schedule_with_warmup": cosine_with_min,
    "get_cosine_with_min_lr_schedule_with_warmup_lr_rate": cosine_with_both,
    "get_polynomial_decay_schedule_with_warmup": polynomial,
    "get_inverse_sqrt_schedule": inverse_sqrt,
    "get_wsd_schedule": wsd,
}
NO_FUNCTION_OF_THE_STEP = {
    "get_reduce_on_plateau_schedule",
    "get_greedy_schedule",
    "get_adafactor_schedule",
}
"""Those that follow the loss, or the optimizer itself."""


def test_no_schedule_of_transformers_is_left_out():
    found = {
        name
        for name, _ in inspect.getmembers(theirs, inspect.isfunction)
        if name.startswith("get_") and "schedule" in name and name != "get_scheduler"
    }
    assert found - NO_FUNCTION_OF_THE_STEP <= set(CASES)


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_rates_equal_transformers(name, data):
    build = getattr(theirs, name, None)
    if build is None:
        pytest.skip(f"this version of transformers has no {name}")
    ours, reference, last = CASES[name](data.draw, build)
    edges = np.clip([int(start) + d for start in ours.start for d in (-1, 0, 1)], 0, last)
    at = np.array([*np.linspace(0, last, 60).astype(int), *np.resize(edges, 60)])
    # a rate of exactly zero comes out of their cosine as 6e-17
    np.testing.assert_allclose(ours(np.float32(at)), rates_of(reference, at), rtol=1e-6, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(peak=peaks, period=st.integers(8, 40), mult=st.integers(1, 3), floor=st.just(0.0) | ratios)
def test_warm_restarts_equal_torch(peak, period, mult, floor):
    reference = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(
        (held := optimizer(peak)), period, mult, eta_min=floor * peak
    )
    expected = []
    for _ in range(250):
        expected.append(reference.get_last_lr()[0])
        held.step()
        reference.step()
    cycles = schedules.growing(period, 32 if mult == 1 else 6, mult)
    ours = schedules.cyclic_cosine(peak, cycles, floor=floor)
    np.testing.assert_allclose(ours(np.arange(250)), expected, rtol=1e-6, atol=1e-12)
