"""Schedules pass through published numbers and closed forms worked out in float64."""

import numpy as np
import pytest

from jaxhpo import schedules
from jaxhpo.schedules import Phase


def test_the_cosine_without_warm_up():
    found = schedules.cosine(1e-3, 1000.0, floor=0.01)(np.array([250, 500, 750]))
    np.testing.assert_allclose(found, [8.55017856687341e-4, 5.05e-4, 1.54982143312659e-4], 1e-6)


@pytest.mark.parametrize(
    ("gamma", "expected"),
    [
        (
            1.0,
            {
                9: 0.024471741852423234,
                10: 1.0,
                20: 0.5,
                29: 0.00615582970243117,
                30: 1.0,
                69: 0.001541333133436018,
            },
        ),
        (0.5, {10: 0.5, 30: 0.25, 69: 3.853332833590045e-4}),
    ],
)
def test_warm_restarts(gamma, expected):
    table = schedules.cyclic_cosine(1.0, schedules.growing(10.0, 3, 2.0), cycle_peak=gamma)
    found = table(np.array(list(expected)))
    np.testing.assert_allclose(found, list(expected.values()), rtol=1e-6)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("linear", [0.775, 0.55, 0.325]),
        ("cosine", [0.8681980515339464, 0.55, 0.23180194846605365]),
        ("1-sqrt", [0.55, 0.36360389693210715, 0.22057713659400527]),
        ("inverse", [0.3076923076923077, 0.18181818181818182, 0.12903225806451613]),
        ("geometric", [0.5623413251903491, 0.31622776601683794, 0.1778279410038923]),
    ],
)
def test_decays_to_a_tenth(shape, expected):
    table = schedules.wsd(1.0, 40.0, 100.0, decay_shape=shape, floor=0.1)
    np.testing.assert_allclose(table(np.array([65, 90, 115])), expected, rtol=1e-6)
    np.testing.assert_allclose(table(np.array([40, 140, 999])), [1.0, 0.1, 0.1], rtol=1e-6)


def test_noams_rates_of_the_transformer():
    found = schedules.noam(512, 4000)(np.array([1, 4000, 100_000]))
    expected = [1.746928107421711e-07, 6.987712429686843e-04, 1.3975424859373687e-04]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_an_exponential_decay_halves_every_half_life():
    table = schedules.wsd(1.0, 0.0, 40_000.0, decay_shape="exponential", half_life=5000.0)
    found = table(np.array([1000, 5000, 10_000, 20_000]))
    np.testing.assert_allclose(found, [0.8705505632961241, 0.5, 0.25, 0.0625], rtol=1e-6)


def test_an_exponential_decay_stops_at_its_floor_and_not_before():
    table = schedules.wsd(
        1.0, 0.0, 40_000.0, decay_shape="exponential", half_life=5000.0, floor=0.1
    )
    reached = 16_609.64  # half_life log2(10)
    found = np.asarray(table(np.array([reached - 1, reached + 1, 50_000], np.float32)))
    assert found[0] > 0.1 and np.all(found[1:] == np.float32(0.1))


def test_an_empty_phase_is_skipped():
    rows = [Phase("linear", 10.0, 0.0, 1.0), Phase("hold", 0.0, 9.0, 9.0)]
    rows += [Phase("cosine", 0.0, 5.0, 5.0), Phase("linear", 10.0, 1.0, 0.0)]
    found = schedules.sequence(rows)(np.array([0, 5, 10, 15, 20, 21]))
    np.testing.assert_allclose(found, [0.0, 0.5, 1.0, 0.5, 0.0, 0.0], atol=1e-7)


def test_a_decay_of_no_steps_is_over_at_once():
    table = schedules.wsd(1.0, 10.0, 0.0, floor=0.1)
    np.testing.assert_allclose(table(np.array([9, 10, 11, 99])), [1.0, 0.1, 0.1, 0.1], rtol=1e-6)


def test_a_rise_from_zero_keeps_its_first_digits():
    found = schedules.sequence([Phase("polynomial", 1000.0, 0.0, 1.0, 0.5)])(np.array([1, 10]))
    np.testing.assert_allclose(found, [5.001250625e-4, 5.012562893e-3], rtol=1e-6)
