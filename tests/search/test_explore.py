"""Explore: a copy's hyperparameters."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxhpo.search import PbtConfig, Space
from jaxhpo.search.explore import explore

TEXTS = {
    "lr": "log(1e-4, 1e-1)",
    "rate": "uniform(-1, 1)",
    "warmup": "int(0, 9)",
    "kind": "choice(a, b, c)",
}
SPACE = Space.from_mapping(TEXTS, lambda name: False, list(TEXTS))


def explored(point, seed=0, **options):
    return explore(point, SPACE, PbtConfig(**options), np.random.default_rng(seed))


@given(
    unit=st.lists(st.floats(0, 1), min_size=4, max_size=4),
    how=st.sampled_from(["perturb", "normal", "resample", "none"]),
    factor=st.floats(0.01, 0.99),
    scale=st.floats(0.01, 1),
    seed=st.integers(0, 2**32),
)
def test_explored_points_stay_inside_the_space(unit, how, factor, scale, seed):
    factors = (1 / factor, factor)
    options = {"explore": how, "perturb_factors": factors, "perturb_scale": scale}
    SPACE.check(explored(SPACE.decode(unit), seed, **options))


def test_perturbing_takes_both_factors_on_each_dimension_independently():
    point = {"lr": 1e-3, "rate": 0.0, "warmup": 5, "kind": "b"}
    seen = [explored(point, seed, resample_probability=0) for seed in range(200)]
    assert {round(p["lr"], 10) for p in seen} == {1.2e-3, 0.8e-3}
    assert {round(p["rate"], 10) for p in seen} == {0.2, -0.2}
    assert {p["warmup"] for p in seen} == {6, 4}
    assert {p["kind"] for p in seen} == {"a", "c"}
    assert len({tuple(p.values()) for p in seen}) == 16


def test_resampling_has_the_stated_probability():
    point = {"lr": 1e-3, "rate": 0.0, "warmup": 5, "kind": "b"}
    rates = [explored(point, seed, resample_probability=0.25)["lr"] for seed in range(2000)]
    anew = sum(round(rate, 10) not in (1.2e-3, 0.8e-3) for rate in rates)
    assert anew / 2000 == pytest.approx(0.25, abs=0.04)  # four standard deviations


def test_normal_noise_has_the_stated_scale_of_the_range():
    point = {"lr": 1e-3, "rate": 0.0, "warmup": 5, "kind": "b"}
    options = {"explore": "normal", "perturb_scale": 0.05, "resample_probability": 0}
    moved = np.array([explored(point, seed, **options)["rate"] for seed in range(2000)])
    assert moved.mean() == pytest.approx(0, abs=0.01)  # four standard errors
    assert moved.std() == pytest.approx(0.1, rel=0.07)  # four standard errors


def test_exploring_by_none_keeps_the_point():
    point = {"lr": 1e-3, "rate": 0.0, "warmup": 5, "kind": "b"}
    assert explored(point, explore="none", resample_probability=1) == point
