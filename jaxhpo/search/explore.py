"""Explore: how the hyperparameters of a copy change, one dimension at a time, inside the space."""

import numpy as np

from jaxhpo.search.config import PbtConfig
from jaxhpo.search.distributions import Distribution
from jaxhpo.search.plan import Point, Value
from jaxhpo.search.space import Dimension, Space

TRIES = 100


def explore(point: Point, space: Space, config: PbtConfig, rng: np.random.Generator) -> Point:
    """A point near `point`, every dimension changed independently.

    "perturb" multiplies by one of the factors (uniform dimensions move in the unit interval, whole
    numbers by at least one, choices to a neighbour: see `distributions`); "normal" adds noise in
    the unit interval; both draw a dimension anew with `resample_probability`. "resample" always
    does, "none" changes nothing. A dimension that did not exist in the point is drawn where it does
    now. A point that breaks a constraint is explored again; after many times the old one stays.
    """

    def moved(dimension: Dimension) -> Value:
        if dimension.name not in point:
            return dimension.distribution.sample(rng)
        return _moved(point[dimension.name], dimension.distribution, config, rng)

    for _ in range(TRIES):
        explored = space.build(moved)
        if space.allows(explored):
            return explored
    return point


def _moved(
    value: Value, distribution: Distribution, config: PbtConfig, rng: np.random.Generator
) -> Value:
    if config.explore == "none":
        return value
    if config.explore == "resample" or rng.random() < config.resample_probability:
        return distribution.sample(rng)
    if config.explore == "normal":
        return distribution.decode(distribution.encode(value) + rng.normal(0, config.perturb_scale))
    factors = config.perturb_factors
    return distribution.scaled(value, factors[rng.integers(len(factors))])
