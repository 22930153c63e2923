"""The toy of the PBT paper (2017, figure 2) through the real scheduler and `assemble`."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxhpo.search.config import PbtConfig
from jaxhpo.search.fixed import Fixed
from jaxhpo.search.pbt import Pbt
from jaxhpo.search.space import Space
from jaxhpo.study.compile_group import CompileGroup
from jaxhpo.study.groups import Groups
from jaxhpo.study.loop import Study
from tests.population.conftest import make_engine

STEPS, INTERVAL, RATE = 200, 10, 0.01
START = ({"h0": 1.0, "h1": 0.0}, {"h0": 0.0, "h1": 1.0})


@dataclass(frozen=True)
class Quadratic:
    """Trained on 1.2 - (h0 t0^2 + h1 t1^2), judged by 1.2 - (t0^2 + t1^2); losses are minus."""

    def init(self, key: Any, hyperparams: Any) -> Any:
        return jnp.full(2, 0.9)

    def loss(self, params: Any, batch: Any, hyperparams: Any, key: Any) -> jax.Array:
        weights = jnp.ones(2) if key is None else hyperparams["h"]
        return jnp.sum(weights * params**2) - 1.2

    def optimizer(self, hyperparams: Any) -> optax.GradientTransformation:
        return optax.sgd(RATE)

    def rate(self, hyperparams: Any, step: Any) -> jax.Array:
        return jnp.float32(RATE)

    def cooled(self, hyperparams: Any, start: Any, steps: Any) -> Any:
        return hyperparams


class Silent:
    """A record that keeps the last report."""

    def planned(self, *_: Any) -> None: ...

    def save(self, *_: Any, **__: Any) -> None: ...

    def reported(self, index: int, plan: Any, report: Any, *_: Any) -> None:
        self.best = -min(result.loss for result in report)


@pytest.fixture(scope="module")
def engine() -> Any:
    return make_engine(Quadratic(), devices=1, members=2)


def best_of(engine: Any, scheduler: Any) -> float:
    record = Silent()
    nothing = np.zeros((1, 1), np.float32)
    group = CompileGroup(
        engines=[engine],
        lower=lambda points: {"h": np.array([[p["h0"], p["h1"]] for p in points], np.float32)},
        batch_at=lambda step, steps: np.zeros((steps, 1), np.float32),
        held_out=nothing,
        segment=INTERVAL,
        probe=0,
    )
    study = Study(scheduler, Groups.of_one(group), record)
    study.run(scheduler.first(), lambda: None)
    return record.best


def test_grid_search_ends_where_the_closed_form_says(engine: Any) -> None:
    found = best_of(engine, Fixed(START, STEPS, INTERVAL))
    assert found == pytest.approx(1.2 - 0.81 - 0.81 * 0.98**400, abs=1e-5)  # 0.3897, in float32


@pytest.mark.parametrize("seed", range(5))
def test_population_based_training_gets_past_what_no_fixed_point_reaches(
    engine: Any, seed: int
) -> None:
    space = Space.from_mapping(
        {"h0": "uniform(0, 1)", "h1": "uniform(0, 1)"}, lambda name: False, ["h0", "h1"]
    )
    config = PbtConfig(
        members=2,
        interval=INTERVAL,
        quantile=0.5,
        fitness="loss",
        inherit="weights",
        explore="normal",
        perturb_scale=0.1,
        resample_probability=0.0,
    )
    assert best_of(engine, Pbt(space, config, STEPS, seed, initial=START)) > 0.9
