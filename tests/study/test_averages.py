"""Averages of checkpoints: what they are, what they are worth, and forks that begin with them."""

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxhpo.config.averages import AverageConfig
from jaxhpo.errors import UsageError
from jaxhpo.population.config import ExecutionConfig
from jaxhpo.record.history import history
from jaxhpo.study.averages import evaluate_average
from jaxhpo.study.forking import weights
from tests.study.test_forks import begun, forked, member

ASKED = AverageConfig(at=("300", "400", "last"), execution=ExecutionConfig(devices=2))


def test_an_average_is_the_mean_of_the_parameters_and_each_is_measured(whole: Path) -> None:
    found = evaluate_average(whole, ASKED)
    parts = [member(whole, step).params for step in (300, 400, 800)]
    mean = jax.tree.map(lambda *p: np.mean([x.astype(np.float64) for x in p], 0), *parts)
    for a, b in zip(jax.tree.leaves(found.params), jax.tree.leaves(mean), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    assert found.steps == (300, 400, 800)
    logged = {row["step"]: row["loss"] for r in history(whole).reports for row in r["results"]}
    # the same program on other rows: equal to the bit
    assert found.losses == tuple(logged[step] for step in found.steps)


def test_an_average_of_one_checkpoint_with_itself_alone_would_be_itself(whole: Path) -> None:
    near = evaluate_average(whole, replace(ASKED, at=("400", "last"), ema=1e-12))
    assert near.loss == pytest.approx(near.losses[-1], abs=1e-6)


def test_ema_weighs_each_checkpoint_less_than_the_next() -> None:
    found = weights(3, 0.9)
    assert found[1] / found[0] == pytest.approx(1 / 0.9) == found[2] / found[1]
    assert sum(found) == pytest.approx(1) and weights(4, None) == (0.25,) * 4


def test_a_fork_from_an_average_has_its_parameters_and_the_newest_moments(
    whole: Path, tmp_path: Path
) -> None:
    config = forked(whole, average=("300", "400", "last"), preset="recycle", steps=1000)
    first, _, _, setup = begun(config, tmp_path)
    mean, newest = evaluate_average(whole, ASKED).params, member(whole, 800)
    for a, b in zip(jax.tree.leaves(first.params), jax.tree.leaves(mean), strict=True):
        assert np.array_equal(a, b)
    for a, b in zip(jax.tree.leaves(first.moments), jax.tree.leaves(newest.moments), strict=True):
        assert np.array_equal(a, b)
    assert first.step == 800 and setup.origin.children[0].start == 800


def test_mistakes_are_named(whole: Path) -> None:
    with pytest.raises(UsageError, match="at=400; allowed: two checkpoints or more"):
        evaluate_average(whole, AverageConfig(at=("400",)))
    with pytest.raises(
        UsageError, match=r"at=401: .* kept no such checkpoint; steps .* 300 \(fork"
    ):
        evaluate_average(whole, replace(ASKED, at=("401", "last")))
    with pytest.raises(UsageError, match="ema=2"):
        AverageConfig(ema=2.0)
