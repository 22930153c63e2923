"""Every scheduler by name; the contract test drives each of them."""

from collections.abc import Sequence
from dataclasses import replace

from jaxhpo.errors import UsageError
from jaxhpo.search import proposing, stopping
from jaxhpo.search.config import COPYING, POPULATIONS, PbtConfig, SearchConfig
from jaxhpo.search.fixed import Fixed
from jaxhpo.search.forks import SETS, Forks
from jaxhpo.search.journal import Journal
from jaxhpo.search.pb2 import Pb2
from jaxhpo.search.pbt import Pbt
from jaxhpo.search.plan import Point, Scheduler
from jaxhpo.search.replay import Replay
from jaxhpo.search.rules import parse_rule
from jaxhpo.search.segments import check_length, check_seed
from jaxhpo.search.space import Space
from jaxhpo.search.together import Together
from jaxhpo.search.trials import Trials
from jaxhpo.search.values import nearest

COMBINATIONS = {
    "grid": ("grid", "none"),
    "random": ("random", "none"),
    "sobol": ("sobol", "none"),
    "halving": ("random", "halving"),
    "asha": ("random", "asha"),
    "hyperband": ("random", "hyperband"),
    "median": ("random", "median"),
    "two-stage": ("tpe", "two-stage"),
    "bohb": ("kde", "hyperband"),
    "bayes": ("tpe", "none"),
    "tpe": ("tpe", "none"),
}
"""Scheduler -> who proposes points, and who stops trials."""

SCHEDULERS: dict[str, type] = {
    "fixed": Fixed,
    "pbt": Pbt,
    "pb2": Pb2,
    "replay": Replay,
    "together": Together,
    "wsd-forks": Trials,
    **dict.fromkeys(COMBINATIONS, Trials),
}

SEARCHES = (*COMBINATIONS, *COPYING)
"""The schedulers that `make` makes; it takes the names of Optuna's samplers too."""

ROUNDS = 8
"""A proposer that learns from results trains its trials in so many rounds, if not told."""


def make(
    name: str,
    config: SearchConfig,
    space: Space,
    steps: int,
    seed: int,
    *,
    pbt: PbtConfig | None = None,
    anneal_start: int | None = None,
    initial: Sequence[Point] = (),
    journal: Journal | None = None,
) -> Scheduler:
    """The scheduler that a user names (`config.scheduler`); every full trial has `steps` steps.

    `pbt` and `anneal_start` are for pbt and pb2, `initial` are the points to begin with, `journal`
    keeps the answers of a shared database. What `config.constraints` says is added to the space.
    All but pbt and pb2 have `close()`, to be called when the search is left, for whatever reason.
    Raises UsageError naming the nearest scheduler, proposer or stopper, or what does not fit.
    """
    check_length("steps", steps)
    check_seed(seed)
    rules = [rule for rule in map(parse_rule, config.constraints)]
    space = replace(space, constraints=(*space.constraints, *rules))
    if name in POPULATIONS:
        _refuse(name, config, ("proposer", "stopper", "storage"))
        kind = Pbt if name == "pbt" else Pb2
        return kind(space, pbt or PbtConfig(), steps, seed, anneal_start, initial)
    if name == "wsd-forks":
        _refuse(name, config, ("stopper", "storage"))
        return _wsd_forks(config, space, steps, seed, initial)
    return _trials(name, config, space, steps, seed, initial, journal)


def combination(name: str, config: SearchConfig) -> tuple[str, str]:
    """The proposer and the stopper of a scheduler. Raises UsageError naming the nearest."""
    if name in COMBINATIONS:
        proposer, stopper = COMBINATIONS[name]
    else:
        from jaxhpo.search.samplers import sampler_names

        known = (*SEARCHES, *sampler_names())
        if name not in known:
            near = nearest(name, known)
            raise UsageError(f"search.scheduler={name!r}: no such scheduler{near}")
        proposer, stopper = name, "none"
    return config.proposer or proposer, config.stopper or stopper


def _trials(
    name: str,
    config: SearchConfig,
    space: Space,
    steps: int,
    seed: int,
    initial: Sequence[Point],
    journal: Journal | None,
) -> Trials:
    proposes, stops = combination(name, config)
    stopping.check_stopper(stops)
    if not space.dimensions:
        raise UsageError(f"space: {name} needs at least one dimension to search")
    brief = stopping.Brief(config, config.trials, steps, seed)
    trials = config.trials
    if stops == "hyperband":
        trials = stopping.make_stopper(stops, brief).bounds.trials
    proposer = proposing.make_proposer(
        proposes, proposing.Brief(config, space, steps, seed, trials, initial), journal
    )
    if stops != "hyperband" and proposer.limit is not None:
        brief = replace(brief, trials=proposer.limit)
    places = config.places
    if places is None and proposes not in proposing.FORESEEING:
        places = -(-trials // ROUNDS)
    probe = stopping.probe_steps(stops, brief)
    stopper = stopping.make_stopper(stops, brief)
    return Trials(proposer, stopper, config.segment, places, probe)


def _wsd_forks(
    config: SearchConfig, space: Space, steps: int, seed: int, initial: Sequence[Point]
) -> Trials:
    for name in SETS:
        if name in space.names:
            raise UsageError(f"space: {name} is set by wsd-forks; leave it out")
    trunks = config.trials if space.dimensions else 1
    stopper = Forks(trunks, steps, config.forks, config.decay_share, config.segment)
    first = stopper.decays[0][0]
    for d in space.dimensions:
        if d.name == "schedule.warmup_steps" and float(d.distribution.decode(1.0)) > first:
            raise UsageError(
                f"space: schedule.warmup_steps={d.distribution} may be longer than the first "
                f"decay's start, {first}; lower it, or use fewer forks"
            )
    proposes = config.proposer or "random"
    brief = proposing.Brief(config, space, steps, seed, trunks, initial)
    proposer = proposing.make_proposer(proposes if space.dimensions else "random", brief)
    return Trials(proposer, stopper, config.segment, config.places, base=stopper.trunk)


def _refuse(name: str, config: SearchConfig, options: Sequence[str]) -> None:
    for option in options:
        if (value := getattr(config, option)) is not None:
            raise UsageError(f"search.{option}={value!r} has no meaning for {name}; leave it out")
