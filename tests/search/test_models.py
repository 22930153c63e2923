"""The models behind proposals: Gaussian processes, densities, rank correlation."""

import math

import numpy as np
import pytest

from jaxhpo.search import Space, spearman
from jaxhpo.search.gp import Kernel, Process, fit
from jaxhpo.search.kde import Kde
from jaxhpo.search.pb2 import Model
from jaxhpo.search.plan import Assignment, Plan, Result
from jaxhpo.search.ranks import early_and_final

X = np.array([[0.0, 0.1], [0.0, 0.4], [0.0, 0.9]])
AT = np.array([[0.0, 0.25], [0.0, 0.5], [0.0, 0.7]])


def test_a_process_that_forgets_nothing_is_the_textbooks():
    # exp(-d^2 / (2 * 0.2^2)), noise 1e-6
    process = Process.at(Kernel(1.0, 2 * 0.2**2, 0.0, 1e-6), X)
    mean = process.mean(np.array([0.2, 0.8, 0.1]), AT)
    assert mean == pytest.approx([0.56854903, 0.7221233, 0.30386176], abs=1e-8)
    variance = process.deviation(AT) ** 2
    assert variance == pytest.approx([0.13931889, 0.18676139, 0.53486932], abs=1e-8)


def test_what_is_known_fades_with_time():
    x = np.array([[0.0, 0.5]])
    later = np.array([[0.0, 0.5], [1.0, 0.5], [2.0, 0.5]])
    process = Process.at(Kernel(1.0, 1.0, 0.5, 1e-9), x)
    assert process.mean(np.array([1.0]), later) == pytest.approx([1, 0.5**0.5, 0.5], abs=1e-6)


def test_the_likeliest_kernel_has_the_length_of_the_data():
    rng = np.random.default_rng(0)
    x = np.column_stack([np.zeros(60), rng.random(60)])
    smooth, rough = np.sin(3 * x[:, 1]), np.sin(40 * x[:, 1])
    assert fit(x, smooth).length > fit(x, rough).length


def test_a_bandit_prefers_what_gained_and_avoids_what_already_runs():
    rng = np.random.default_rng(0)
    gains = []
    for point in rng.random((30, 1)):
        gains.append((float(rng.integers(1, 5)), 1.0, point, -float((point[0] - 0.7) ** 2)))
    model, at = Model.of(gains), np.linspace(0, 1, 101)[:, None]
    bounds = model.upper_bounds(5.0, 1.0, at, np.empty((0, 1)))
    assert abs(at[bounds.argmax(), 0] - 0.7) < 0.15
    beside = model.upper_bounds(5.0, 1.0, at, at[[bounds.argmax()]])
    assert beside[bounds.argmax()] < bounds[bounds.argmax()]


def test_densities_propose_near_good_points():
    space = Space.from_mapping({"x": "uniform(0, 1)", "k": "choice(a, b)"}, lambda n: False, "xk")
    proposer = Kde(space, 0)
    for trial in range(60):
        point = proposer.propose(trial)
        apart = abs(point["x"] - 0.2) + (point["k"] == "b")
        proposer.report(trial, 10, apart)
    late = [proposer.propose(trial) for trial in range(60, 120)]
    near = [p for p in late if abs(p["x"] - 0.2) < 0.2 and p["k"] == "a"]
    # a third is random, of which a fifth is near
    assert len(near) > 30


def test_densities_avoid_where_bad_points_are_too():
    space = Space.from_mapping({"x": "uniform(0, 1)"}, lambda n: False, "x")
    good = np.array([[0.2], [0.22], [0.8], [0.82]])
    bad = np.concatenate([np.linspace(0.7, 0.9, 20)[:, None], np.array([[0.5]])])
    proposer, near = Kde(space, 0), 0
    for seed in range(50):
        near += proposer._best(good, bad, np.random.default_rng(seed))["x"] < 0.5
    assert near >= 45


def test_spearman_is_that_of_the_textbook():
    early = [0.70, 0.72, 0.68, 0.75, 0.74, 0.66, 0.71, 0.73]
    final = [0.80, 0.83, 0.79, 0.86, 0.84, 0.78, 0.82, 0.81]
    assert spearman(early, final) == pytest.approx(0.9285714286, abs=1e-10)
    stats = pytest.importorskip("scipy.stats")
    tied = [1.0, 2.0, 2.0, 3.0, 3.0, 3.0]
    other = [2.0, 1.0, 4.0, 4.0, 5.0, 0.0]
    assert spearman(tied, other) == pytest.approx(stats.spearmanr(tied, other).statistic)
    assert math.isnan(spearman([1, 1], [1, 2]))


def test_early_and_final_scores_are_those_of_trials_that_have_both():
    rows = tuple(Assignment(t, {}, None, 5, 0) for t in range(3))
    first = (Result(0, 5, 1.0, 0.9), Result(1, 5, 2.0, 1.9), Result(2, 5, math.nan, math.nan))
    then = Plan((rows[0], rows[2]))
    last = (Result(0, 9, 0.5, 0.4), Result(2, 9, 0.5, 0.4))
    assert early_and_final([(Plan(rows), first), (then, last)], 5, 9) == {0: (0.9, 0.4)}
