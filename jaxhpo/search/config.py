"""How searches choose points, stop trials, and explore."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from jaxhpo.errors import UsageError

Exploit = Literal["truncation", "tournament", "ttest"]
Explore = Literal["perturb", "normal", "resample", "none"]
Fitness = Literal["probe", "loss", "improvement"]
Inherit = Literal["both", "weights"]

POPULATIONS = ("pbt", "pb2")
"""Schedulers whose trials tune themselves while they train."""

COPYING = (*POPULATIONS, "wsd-forks")
"""Schedulers that begin trials as copies of others, which are equally long."""


@dataclass(frozen=True)
class PbtConfig:
    """Population-based training; lengths are optimizer steps."""

    members: int = 8
    """members of the population"""
    interval: int = 50
    """steps between two selections"""
    burn_in: int | None = None
    """steps before the first selection (default: interval)"""
    exploit: Exploit = "truncation"
    """who copies whom: the worst quantile from the best, or each from a better rival it draws"""
    quantile: float = 0.25
    """share of the members that truncation replaces, and share it copies from (at most a half)"""
    ttest_level: float = 0.05
    """a rival is copied if Welch's two-sided p-value is below this"""
    explore: Explore = "perturb"
    """how a copy's hyperparameters change: by a factor, by noise, drawn anew, or not at all"""
    perturb_factors: tuple[float, ...] = (1.2, 0.8)
    """a perturbed hyperparameter is multiplied by one of these (Jaderberg et al. 2017)"""
    perturb_scale: float = 0.1
    """standard deviation of normal noise, as a share of the dimension's range"""
    resample_probability: float = 0.25
    """chance that a hyperparameter is drawn anew instead of perturbed"""
    inherit: Inherit = "both"
    """what a copy explores from: its parent's hyperparameters, or its own (weights only)"""
    fitness: Fitness = "probe"
    """what ranks: held-out loss after a short cool-down, as it is, or its change per step"""
    probe_share: float = 0.2
    """length of the cool-down probe as a share of the interval (an eighth to a quarter is best)"""
    beside: bool = True
    """hold the same initial hyperparameters fixed in a second population beside it, to compare"""

    def __post_init__(self) -> None:
        self._whole("members")
        self._whole("interval")
        if self.burn_in is not None:
            self._whole("burn_in")
        for name, kind in _LITERALS.items():
            if getattr(self, name) not in get_args(kind):
                self._refuse(name, f"is none of {', '.join(get_args(kind))}")
        self._share("quantile", 0.5)
        self._share("probe_share", 1.0)
        self._share("ttest_level", 1.0)
        self._share("perturb_scale", 1.0)
        if not 0 <= self.resample_probability <= 1:
            self._refuse("resample_probability", "must be between 0 and 1")
        if not self.perturb_factors:
            self._refuse("perturb_factors", "needs at least one factor")
        for factor in self.perturb_factors:
            if not (0 < factor < math.inf) or factor == 1:
                self._refuse("perturb_factors", "must be positive, finite and not 1")

    @property
    def first_selection(self) -> int:
        """Step of the first selection."""
        return self.interval if self.burn_in is None else self.burn_in

    @property
    def probe_steps(self) -> int:
        """Cool-down steps of one member at one selection; zero where nothing is probed."""
        return max(1, round(self.interval * self.probe_share)) if self.fitness == "probe" else 0

    def _whole(self, name: str) -> None:
        value = getattr(self, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            self._refuse(name, "must be a whole number of at least 1")

    def _share(self, name: str, most: float) -> None:
        if not 0 < getattr(self, name) <= most:
            self._refuse(name, f"must be above 0 and at most {most:g}")

    def _refuse(self, name: str, rule: str) -> None:
        raise UsageError(f"pbt.{name}={getattr(self, name)!r} {rule}")


Rank = Literal["probe", "loss"]
Asynchrony = Literal["promote", "stop"]


@dataclass(frozen=True)
class SearchConfig:
    """A search over points; lengths are optimizer steps, and every full trial has `steps`."""

    scheduler: str = "asha"
    """grid, random, sobol, halving, asha, hyperband, median, two-stage, bohb, bayes, tpe (or any
    other of Optuna's samplers), pbt, pb2, wsd-forks"""
    proposer: str | None = None
    """where points come from: grid, random, sobol, kde, or one of Optuna's samplers (default: what
    the scheduler's name says)"""
    stopper: str | None = None
    """who trains on: none, halving, asha, hyperband, median, two-stage (default: what the
    scheduler's name says)"""
    trials: int = 16
    """trials started; a grid has as many as it has points, Hyperband as its brackets ask for"""
    places: int | None = None
    """trials that train at once (default: all; an eighth where points depend on earlier results)"""
    segment: int = 100
    """most steps between two reports"""
    eta: int = 3
    """one in so many goes on to the next rung, which is so many times longer"""
    min_steps: int | None = None
    """length of the lowest rung, and of median stopping's intervals (default: from trials, eta)"""
    asynchrony: Asynchrony = "promote"
    """ASHA pauses trials and promotes the best (promote), or lets go those that are not (stop)"""
    brackets: int | None = None
    """Hyperband's brackets, the most aggressive first (default: all)"""
    passes: int = 1
    """times that Hyperband runs its brackets"""
    min_samples: int = 3
    """other trials that must have come as far before the median rule stops one"""
    early_share: float = 0.2
    """two-stage: share of the steps after which all trials but the best are let go"""
    keep: int = 5
    """two-stage: trials that are continued to the end"""
    continued: int = 0
    """two-stage: so many of the others, drawn at random, are continued too, so that the rank
    correlation between early and final losses is not that of survivors alone"""
    rank: Rank = "probe"
    """what decides who goes on: held-out loss after a short cool-down, or as it is"""
    probe_share: float = 0.2
    """length of the cool-down probe as a share of the lowest rung"""
    levels: int = 3
    """grid: values of each dimension that is not a choice, bounds included"""
    forks: int = 4
    """wsd-forks: decays from one trunk, at equal distances"""
    decay_share: float = 0.2
    """wsd-forks: length of each decay as a share of all steps to its end"""
    constraints: tuple[str, ...] = ()
    """comparisons that every point must satisfy: 'schedule.warmup_steps <= schedule.decay_start'"""
    storage: str | None = None
    """URL of a database that several processes share: sqlite:///study.db, postgresql://..., mysql://
    (default: none; the run's own log is all that a search of one process needs)"""
    study: str = "jaxhpo"
    """name of the study in that database"""
    heartbeat: int = 60
    """seconds between signs of life to the database; a trial without two is given out again"""

    def __post_init__(self) -> None:
        for name in ("trials", "places", "segment", "min_steps", "brackets", "passes"):
            self._whole(name, 1)
        for name in ("min_samples", "keep", "levels", "forks", "heartbeat"):
            self._whole(name, 1)
        self._whole("eta", 2)
        self._whole("continued", 0)
        for name in ("early_share", "probe_share", "decay_share"):
            if not 0 < getattr(self, name) <= 1:
                self._refuse(name, "must be above 0 and at most 1")
        for name, kind in (("rank", Rank), ("asynchrony", Asynchrony)):
            if getattr(self, name) not in get_args(kind):
                self._refuse(name, f"is none of {', '.join(get_args(kind))}")
        if not self.study:
            self._refuse("study", "needs a name")

    def _whole(self, name: str, least: int) -> None:
        value = getattr(self, name)
        if value is None and name in ("places", "min_steps", "brackets"):
            return
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            self._refuse(name, f"must be a whole number of at least {least}")

    def _refuse(self, name: str, rule: str) -> None:
        raise UsageError(f"search.{name}={getattr(self, name)!r} {rule}")


_LITERALS = {"exploit": Exploit, "explore": Explore, "fitness": Fitness, "inherit": Inherit}
