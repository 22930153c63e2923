"""Optuna's samplers by name, and spaces in its terms. Optuna takes 0.7 s to import: late."""

import contextlib
import inspect
import warnings
from collections.abc import Generator
from typing import Any

from jaxhpo.errors import UsageError
from jaxhpo.search.distributions import Choice, Integer, Log, LogInteger, Uniform
from jaxhpo.search.plan import Point, Value
from jaxhpo.search.space import Dimension, Space
from jaxhpo.search.values import nearest

# they are of use only to those who subclass them, need to be told more than a space, or, as brute
# force does, stop an optimization loop that we do not run
_NOT_ALONE = {"BaseSampler", "BaseGASampler", "PartialFixedSampler", "GridSampler"}
_NOT_ALONE |= {"BruteForceSampler"}


@contextlib.contextmanager
def quietly() -> Generator[None]:
    """Optuna without its notes on what is experimental, and on what each study does."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(before)


def sampler_names() -> dict[str, str]:
    """Name on the command line -> class in optuna.samplers, as installed: tpe, gp, nsgaii, ..."""
    import optuna

    found = [name for name in optuna.samplers.__all__ if name.endswith("Sampler")]
    return {n.removesuffix("Sampler").lower(): n for n in found if n not in _NOT_ALONE}


def make_sampler(name: str, space: Space, seed: int | None, trials: int) -> Any:
    """One of Optuna's samplers, reproducible by `seed` (None: it is not).

    A third of the trials, and no more than the sampler's own number, are random at first. Raises
    UsageError for an unknown name, and where a library that the sampler needs is not installed.
    """
    import optuna

    known = sampler_names()
    if name not in known:
        raise UsageError(f"search.proposer={name!r}: no such sampler{nearest(name, list(known))}")
    kind = getattr(optuna.samplers, known[name])
    takes = inspect.signature(kind).parameters
    options: dict[str, Any] = {"seed": None if seed is None else seed % 2**32}
    if getattr(takes.get("n_startup_trials"), "default", None) == 10:
        options["n_startup_trials"] = min(10, max(2, trials // 3))
    if name == "tpe":  # said, for what is the default changed with version 5
        options |= {"multivariate": True, "constant_liar": True, "group": space.conditional}
    try:
        with quietly():
            return kind(**{key: value for key, value in options.items() if key in takes})
    except ImportError as error:
        raise needs_library(name, error) from None


def needs_library(name: str, error: ImportError) -> UsageError:
    missing = getattr(error, "name", None) or str(error).splitlines()[0]
    return UsageError(f"search.proposer={name!r} needs {missing}, which is not installed")


def distribution_of(dimension: Dimension) -> Any:
    """Optuna's distribution of the values that `stored` gives."""
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    d = dimension.distribution
    if isinstance(d, Choice):
        return CategoricalDistribution(d.values)
    if isinstance(d, Integer):
        return IntDistribution(d.low, d.high, log=isinstance(d, LogInteger))
    if isinstance(d, Uniform | Log):
        return FloatDistribution(d.low, d.high, log=isinstance(d, Log))
    return FloatDistribution(0.0, 1.0)  # no such distribution there: its quantile is searched


def stored(dimension: Dimension, value: Value) -> Value:
    """A value as Optuna has it: itself, or its quantile where Optuna lacks the distribution."""
    d = dimension.distribution
    if isinstance(d, Choice | Integer | Uniform | Log):
        return d.clip(value)
    return min(max(d.encode(value), 0.0), 1.0)


def suggested(trial: Any, space: Space) -> Point:
    """The point that a trial of Optuna's suggests."""
    suggest = {
        "CategoricalDistribution": lambda name, d: trial.suggest_categorical(name, d.choices),
        "IntDistribution": lambda name, d: trial.suggest_int(name, d.low, d.high, log=d.log),
        "FloatDistribution": lambda name, d: trial.suggest_float(name, d.low, d.high, log=d.log),
    }

    def value_of(dimension: Dimension) -> Value:
        theirs = distribution_of(dimension)
        value = suggest[type(theirs).__name__](dimension.name, theirs)
        d = dimension.distribution
        plain = isinstance(d, Choice | Integer | Uniform | Log)
        if not plain:
            return d.decode(float(value))
        return d.clip(value) if d.contains(value) else value  # whoever may write there, may err

    return space.build(value_of)


def parameters(point: Point, space: Space) -> dict[str, Value]:
    """A point in Optuna's terms."""
    return {d.name: stored(d, point[d.name]) for d in space.dimensions if d.name in point}
