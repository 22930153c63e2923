"""Populations that the devices can't hold at once: trained in waves, seen as one."""

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxhpo.population.config import ExecutionConfig
from jaxhpo.population.memory import USABLE, memory_plan
from jaxhpo.record.history import history
from jaxhpo.search.config import PbtConfig
from jaxhpo.study.forecast import plan
from jaxhpo.study.runs import execute
from jaxhpo.study.waves import joined
from tests.study.test_meshes import StopsAfter, asked


def limited(out: Path | None, gib: float | None):
    """Eight members that exploit, on one device with so much memory."""
    pbt = PbtConfig(members=8, interval=4, beside=False, fitness="probe", quantile=0.5)
    execution = ExecutionConfig(devices=1, memory_gib=gib)
    return replace(asked(out, "member=1"), pbt=pbt, execution=execution)


@pytest.fixture(scope="module")
def gib() -> float:
    """Memory in which three of the eight members fit, and not four."""
    config = limited(None, None)
    config = replace(config, model=replace(config.model, vocab_size=257))
    three = memory_plan(config, 3, 1, 4, 1).total
    return (three + 64) / USABLE / 2**30


def test_a_population_in_waves_is_the_same_run_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gib: float
) -> None:
    assert ", in 3 waves" in str(plan(limited(None, gib)))
    whole, waves = tmp_path / "whole", tmp_path / "waves"
    execute(limited(whole, None))
    with monkeypatch.context() as stopping:
        stopping.setattr("jaxhpo.study.runs.StopSignals", StopsAfter)
        with pytest.raises(Exception, match="jaxhpo resume"):
            execute(limited(waves, gib))
    execute(replace(limited(waves, gib), resume="auto"))
    found, expected = history(waves), history(whole)
    rows = lambda past: [event["assignments"] for event in past.plans]
    assert rows(found) == rows(expected)
    crossing = {(row["trial"] // 3, row["parent"] // 3) for row in expected.exploits()}
    assert any(child != parent for child, parent in crossing), "copies go from wave to wave"
    results = lambda past: [event["results"] for event in past.reports]
    assert results(found) == results(expected), "losses of raw and cooled members, to the bit"
    assert found.curves() == expected.curves()


def test_a_wave_in_which_nobody_trains_is_not_computed_and_is_nan() -> None:
    from jaxhpo.study.compile_group import Trained

    ones = np.ones((2, 3), np.float32)
    whole = joined([None, Trained({"loss": ones}, ones, ones)])
    np.testing.assert_array_equal(np.isnan(whole.metrics["loss"][:, 0]), [True, True, False, False])
    assert jax.tree.leaves(whole.raw)[0].shape == (4, 3)
