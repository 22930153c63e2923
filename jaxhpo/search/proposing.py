"""Every proposer by name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jaxhpo.errors import UsageError
from jaxhpo.search.config import SearchConfig
from jaxhpo.search.journal import Journal
from jaxhpo.search.kde import Kde
from jaxhpo.search.plan import Point
from jaxhpo.search.proposers import Grid, Proposer, Random, Sobol
from jaxhpo.search.space import Space
from jaxhpo.search.values import nearest


@dataclass(frozen=True)
class Brief:
    """What every proposer is made from. `trials` is how many will be asked for, at most."""

    config: SearchConfig
    space: Space
    steps: int
    seed: int
    trials: int
    initial: Sequence[Point] = ()


PROPOSERS: dict[str, Callable[[Brief], Proposer]] = {
    "grid": lambda b: Grid(b.space, b.seed, b.initial, b.config.levels),
    "random": lambda b: Random(b.space, b.seed, b.initial),
    "sobol": lambda b: Sobol(b.space, b.seed, b.initial),
    "kde": lambda b: Kde(b.space, b.seed, b.initial),
}
"""Those of our own; any other name is one of Optuna's samplers."""

FORESEEING = ("grid", "random", "sobol")
"""Their points depend on no result."""


def make_proposer(name: str, brief: Brief, journal: Journal | None = None) -> Proposer:
    """The proposer of that name; with `config.storage` it is one of Optuna's, on a shared study.

    Raises UsageError naming the nearest for an unknown name, and where a database is asked for that
    can't be reached or doesn't go with the proposer.
    """
    if brief.config.storage is not None:
        from jaxhpo.search.shared import Shared

        if name in PROPOSERS and name != "random":
            raise UsageError(
                f"search.proposer={name!r} needs no search.storage: only Optuna's samplers share a "
                "study; leave it out"
            )
        check_sampler(name)
        config = brief.config
        return Shared(
            name,
            brief.space,
            brief.seed,
            brief.trials,
            brief.steps,
            brief.config.storage,
            config.study,
            config.heartbeat,
            journal,
            brief.initial,
        )
    if name in PROPOSERS:
        return PROPOSERS[name](brief)
    from jaxhpo.search.bayes import Bayes

    check_sampler(name)
    return Bayes(name, brief.space, brief.seed, brief.trials, brief.steps, brief.initial)


def check_sampler(name: str) -> None:
    """Raises UsageError if `name` is no proposer."""
    from jaxhpo.search.samplers import sampler_names

    known = (*PROPOSERS, *sampler_names())
    if name not in known:
        raise UsageError(f"search.proposer={name!r}: no such proposer{nearest(name, known)}")
