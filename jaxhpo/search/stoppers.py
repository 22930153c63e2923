"""Stoppers: which trials train on, and to which step.

A stopper hands out jobs, one for each free place, and hears what came of them. Between two reports
it is asked for jobs until it has none; all it decides depends on the reports in order.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from jaxhpo.search.plan import Value


@dataclass(frozen=True)
class Fork:
    """A new trial that starts as a copy of `parent`, with some values of its point changed."""

    parent: int
    change: Mapping[str, Value] = field(default_factory=dict)


Born = Callable[[Fork | None], int | None]
"""Gives the id of a new trial, or None where the proposer has no more points."""


@dataclass(frozen=True)
class Job:
    """Train `trial` until its step `until`; `ranks`: its score there decides who goes on."""

    trial: int
    until: int
    ranks: bool = False


@dataclass(frozen=True)
class Outcome:
    """A job has ended, early if the trial diverged; its score is then NaN."""

    trial: int
    step: int
    score: float

    @property
    def alive(self) -> bool:
        return math.isfinite(self.score)


@dataclass(frozen=True)
class Bounds:
    """The most that a stopper ever asks for.

    `trials` started, `rows` at once (were there places for all), member-steps `trained`, reports
    that are `ranked`; `spans` are the steps from and until which a job may train. `tick` is the
    length in whole multiples of which plans are made, so that trials stay in step with each other.
    """

    trials: int
    rows: int
    trained: int
    ranked: int
    spans: tuple[tuple[int, int], ...]
    tick: int


class Stopper(Protocol):
    """`start` forgets everything; `paused` are trials without a job whose state may be needed.

    `most_paused` is how many those can be where so many trials train at once.
    """

    @property
    def bounds(self) -> Bounds: ...

    def start(self) -> None: ...

    def job(self, born: Born) -> Job | None: ...

    def report(self, outcomes: Sequence[Outcome]) -> None: ...

    @property
    def paused(self) -> frozenset[int]: ...

    def most_paused(self, places: int) -> int: ...


class Unstopped:
    """Every trial trains to the end."""

    def __init__(self, trials: int, steps: int) -> None:
        self.steps, self.trials = steps, trials
        self._started = 0

    @property
    def bounds(self) -> Bounds:
        spans = ((0, self.steps),)
        return Bounds(self.trials, self.trials, self.trials * self.steps, 0, spans, self.steps)

    def start(self) -> None:
        self._started = 0

    def job(self, born: Born) -> Job | None:
        if self._started == self.trials or (trial := born(None)) is None:
            return None
        self._started += 1
        return Job(trial, self.steps)

    def report(self, outcomes: Sequence[Outcome]) -> None:
        pass

    @property
    def paused(self) -> frozenset[int]:
        return frozenset()

    def most_paused(self, places: int) -> int:
        return 0


class Median:
    """A trial stops where its best score so far is worse than the median of the others' averages.

    Every `interval` steps, each trial is compared with all others that have come as far: with the
    median of the averages of their scores up to there. Trials that report together are all heard
    before any is judged. Fewer than `least` others judge nobody. Source: Golovin et al. 2017
    (Vizier), as in Ray Tune's MedianStoppingRule.
    """

    def __init__(self, trials: int, steps: int, interval: int, least: int) -> None:
        self.trials, self.least = trials, least
        self.ends = (*range(interval, steps, interval), steps)
        self.start()

    @property
    def bounds(self) -> Bounds:
        spans = tuple(zip((0, *self.ends), self.ends, strict=False))
        ranked = self.trials * (len(self.ends) - 1)
        trained = self.trials * self.ends[-1]
        return Bounds(self.trials, self.trials, trained, ranked, spans, self.ends[0])

    def start(self) -> None:
        self._scores: dict[int, list[float]] = {}
        self._going: list[int] = []

    def job(self, born: Born) -> Job | None:
        if self._going:
            trial = self._going.pop(0)
        elif len(self._scores) == self.trials or (new := born(None)) is None:
            return None
        else:
            trial = new
            self._scores[trial] = []
        reached = len(self._scores[trial])
        return Job(trial, self.ends[reached], ranks=reached < len(self.ends) - 1)

    def report(self, outcomes: Sequence[Outcome]) -> None:
        living = [outcome for outcome in outcomes if outcome.alive]
        for outcome in living:
            self._scores[outcome.trial].append(outcome.score)
        going = [outcome.trial for outcome in living if self._goes_on(outcome.trial)]
        self._going += going

    def _goes_on(self, trial: int) -> bool:
        mine = self._scores[trial]
        if len(mine) == len(self.ends):
            return False
        averages = [
            sum(scores[: len(mine)]) / len(mine)
            for other, scores in self._scores.items()
            if other != trial and len(scores) >= len(mine)
        ]
        return len(averages) < self.least or min(mine) <= median(averages)

    @property
    def paused(self) -> frozenset[int]:
        return frozenset(self._going)

    def most_paused(self, places: int) -> int:
        return 0  # whoever goes on had a place, and gets it back before anybody else does


def even_part(length: int, most: int) -> int:
    """The largest part, of at most `most` steps, of a length cut into (nearly) equal parts.

    >>> even_part(250, 100), even_part(67, 100)
    (84, 67)
    """
    return -(-length // -(-length // most))


def median(values: Sequence[float]) -> float:
    """The middle value, or the average of the two in the middle."""
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(values) % 2 else (ordered[half - 1] + ordered[half]) / 2


def ranked(scores: Mapping[int, float]) -> list[int]:
    """Trials with a finite score, the best first; of equals, the older."""
    living = [trial for trial, score in scores.items() if math.isfinite(score)]
    return sorted(living, key=lambda trial: (scores[trial], trial))
