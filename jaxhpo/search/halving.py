"""Successive halving, Hyperband's brackets of it, and the two-stage search: rungs that wait.

A rung ends when all its trials have; then the best go on to the next. Source: Jamieson and
Talwalkar 2016 (arXiv 1502.07943); Li et al. 2018 (arXiv 1603.06560).
"""

from collections.abc import Callable, Sequence

import numpy as np

from jaxhpo.search.stoppers import Born, Bounds, Job, Outcome, ranked

Keep = Callable[[dict[int, float]], Sequence[int]]
"""Who goes on, of all trials of a rung and their scores (NaN: it diverged)."""

Rungs = Sequence[tuple[int, int]]
"""(trials, steps) of each rung."""


class Bracket:
    """One race over rungs. `eta` says how many go on; the two-stage search says it by `keep`."""

    def __init__(self, rungs: Rungs, eta: int = 2, keep: Keep | None = None) -> None:
        self.sizes, self.ends = zip(*rungs, strict=True)
        self.eta, self.keep = eta, keep
        self.start()

    def start(self) -> None:
        self._rung, self._started, self._exhausted = 0, 0, False
        self._waiting: list[int] = []
        self._running: set[int] = set()
        self._scores: dict[int, float] = {}

    def job(self, born: Born) -> Job | None:
        trial = None
        if self._rung == 0 and self._started < self.sizes[0]:
            trial = born(None)
            # a proposer may have no more points: the race is then between those that there are
            self._exhausted = trial is None
            self._started += trial is not None
        if trial is None:
            self.advance()
            if not self._waiting:
                return None
            trial = self._waiting.pop(0)
        self._running.add(trial)
        return Job(trial, self.ends[self._rung], ranks=self._rung < len(self.ends) - 1)

    def report(self, outcome: Outcome) -> None:
        if outcome.trial not in self._running:
            return
        self._running.discard(outcome.trial)
        self._scores[outcome.trial] = outcome.score

    def advance(self) -> None:
        """Ends the rung if nobody is missing."""
        missing = self._running or self._waiting or not self._all_started
        if missing or not self._scores:
            return
        if self._rung == len(self.ends) - 1:
            self._scores = {}
            return
        self._waiting = sorted(self._kept(self._scores))
        self._rung, self._scores = self._rung + 1, {}

    @property
    def paused(self) -> frozenset[int]:
        """Those that wait, and those that may still be among the best of their rung."""
        if self._rung == len(self.ends) - 1:
            return frozenset(self._waiting)
        if self.keep is not None:
            return frozenset((*self._waiting, *ranked(self._scores)))
        size = self.sizes[0] if self._rung == 0 else self._count
        best = ranked(self._scores)[: max(1, size // self.eta)]
        return frozenset((*self._waiting, *best))

    def most_paused(self) -> int:
        if len(self.sizes) == 1:
            return 0
        return self.sizes[0] if self.keep is not None else self.sizes[1]

    @property
    def trained(self) -> int:
        spans = zip((0, *self.ends), self.ends, strict=False)
        return sum(n * (end - start) for n, (start, end) in zip(self.sizes, spans, strict=True))

    @property
    def _all_started(self) -> bool:
        return self._rung > 0 or self._exhausted or self._started == self.sizes[0]

    @property
    def _count(self) -> int:
        return len(self._waiting) + len(self._running) + len(self._scores)

    def _kept(self, scores: dict[int, float]) -> Sequence[int]:
        if self.keep is not None:
            return self.keep(scores)
        return ranked(scores)[: max(1, len(scores) // self.eta)]


class Brackets:
    """Races side by side: a place that one has no use for goes to the next at once."""

    def __init__(self, brackets: Sequence[Bracket]) -> None:
        self.brackets = tuple(brackets)

    @property
    def bounds(self) -> Bounds:
        spans = {
            span
            for bracket in self.brackets
            for span in zip((0, *bracket.ends), bracket.ends, strict=False)
        }
        trials = sum(bracket.sizes[0] for bracket in self.brackets)
        return Bounds(
            trials=trials,
            rows=trials,
            trained=sum(bracket.trained for bracket in self.brackets),
            ranked=sum(sum(bracket.sizes[:-1]) for bracket in self.brackets),
            spans=tuple(sorted(spans)),
            tick=min(bracket.ends[0] for bracket in self.brackets),
        )

    def start(self) -> None:
        for bracket in self.brackets:
            bracket.start()

    def job(self, born: Born) -> Job | None:
        for bracket in self.brackets:
            if (job := bracket.job(born)) is not None:
                return job
        return None

    def report(self, outcomes: Sequence[Outcome]) -> None:
        for bracket in self.brackets:
            for outcome in outcomes:
                bracket.report(outcome)
            bracket.advance()

    @property
    def paused(self) -> frozenset[int]:
        return frozenset().union(*(bracket.paused for bracket in self.brackets))

    def most_paused(self, places: int) -> int:
        return sum(bracket.most_paused() for bracket in self.brackets)


def best_and_some(keep: int, continued: int, seed: int) -> Keep:
    """The best `keep` of a rung, and `continued` of the others that did not diverge, at random."""

    def kept(scores: dict[int, float]) -> Sequence[int]:
        order = ranked(scores)
        others = sorted(order[keep:])
        rng = np.random.default_rng([seed, 2])
        drawn = rng.permutation(len(others))[:continued]
        return [*order[:keep], *(others[i] for i in drawn)]

    return kept
