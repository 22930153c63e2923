"""Asynchronous successive halving: no rung waits for its last trial.

Source: Li et al. 2020 (arXiv 1810.05934), algorithm 2 (`Promoting`); `Stopping` is the variant of
Ray Tune's AsyncHyperBandScheduler, which pauses nothing.
"""

from collections.abc import Sequence

import numpy as np

from jaxhpo.search.stoppers import Born, Bounds, Job, Outcome, ranked


class Promoting:
    """A free place goes to the best trial that is in the top 1/eta of its rung and not yet
    promoted, on the highest rung that has one; else to a new trial.

    A rung counts those that diverged on it. If all is done and no trial has reached the last rung,
    the best of the highest rung is promoted, so that the search ends with a full trial.
    """

    def __init__(self, trials: int, ends: Sequence[int], eta: int) -> None:
        self.trials, self.ends, self.eta = trials, tuple(ends), eta
        self.start()

    def start(self) -> None:
        self._started = 0
        self._rung_of: dict[int, int] = {}  # of trials that train
        self._rungs: list[dict[int, float]] = [{} for _ in self.ends]
        self._promoted: list[set[int]] = [set() for _ in self.ends]

    @property
    def bounds(self) -> Bounds:
        spans = tuple(zip((0, *self.ends), self.ends, strict=False))
        most = self._most_promoted
        return Bounds(
            trials=self.trials,
            rows=self.trials,
            trained=sum(n * (end - start) for n, (start, end) in zip(most, spans, strict=True)),
            ranked=sum(most[:-1]),
            spans=spans,
            tick=self.ends[0],
        )

    def job(self, born: Born) -> Job | None:
        for rung in reversed(range(len(self.ends) - 1)):
            if (trial := self._promotable(rung)) is not None:
                return self._promote(trial, rung)
        if self._started < self.trials and (trial := born(None)) is not None:
            self._started += 1
            return self._sent(trial, 0)
        if not self._rung_of and not ranked(self._rungs[-1]):
            for rung in reversed(range(len(self.ends) - 1)):
                if left := self._unpromoted(rung):
                    return self._promote(left[0], rung)
        return None

    def report(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            self._rungs[self._rung_of.pop(outcome.trial)][outcome.trial] = outcome.score

    @property
    def paused(self) -> frozenset[int]:
        """Those that may still be promoted: among the best of their rung, however long it gets."""
        found: set[int] = set()
        for rung, most in enumerate(self._most_promoted[:-1]):
            best = ranked(self._rungs[rung])[: max(1, most // self.eta)]
            found |= set(best) - self._promoted[rung]
        return frozenset(found)

    def most_paused(self, places: int) -> int:
        return sum(max(1, most // self.eta) for most in self._most_promoted[:-1])

    @property
    def _most_promoted(self) -> list[int]:
        """The most trials that each rung may ever see.

        If trials come in the worst order, each better than all before, then every one from the
        eta-th on is in the top 1/eta when it reports.
        """
        most = [self.trials]
        for _ in self.ends[1:]:
            most.append(max(1, most[-1] - self.eta + 1))
        return most

    def _promotable(self, rung: int) -> int | None:
        scores = self._rungs[rung]
        best = ranked(scores)[: len(scores) // self.eta]
        return next((trial for trial in best if trial not in self._promoted[rung]), None)

    def _unpromoted(self, rung: int) -> list[int]:
        return [t for t in ranked(self._rungs[rung]) if t not in self._promoted[rung]]

    def _promote(self, trial: int, rung: int) -> Job:
        self._promoted[rung].add(trial)
        return self._sent(trial, rung + 1)

    def _sent(self, trial: int, rung: int) -> Job:
        self._rung_of[trial] = rung
        return Job(trial, self.ends[rung], ranks=rung < len(self.ends) - 1)


class Stopping:
    """A trial that reaches a rung goes on if its score is in the top 1/eta of those there before.

    The first to come to a rung goes on; of those that come together, the oldest is first. One that
    diverged is let go and not counted.
    """

    def __init__(self, trials: int, ends: Sequence[int], eta: int) -> None:
        self.trials, self.ends, self.eta = trials, tuple(ends), eta
        self.start()

    def start(self) -> None:
        self._started = 0
        self._rung_of: dict[int, int] = {}
        self._rungs: list[list[float]] = [[] for _ in self.ends]
        self._going: list[int] = []

    @property
    def bounds(self) -> Bounds:
        spans = tuple(zip((0, *self.ends), self.ends, strict=False))
        trained, ranked_ = self.trials * self.ends[-1], self.trials * (len(self.ends) - 1)
        return Bounds(self.trials, self.trials, trained, ranked_, spans, self.ends[0])

    def job(self, born: Born) -> Job | None:
        if self._going:
            trial = self._going.pop(0)
        elif self._started == self.trials or (new := born(None)) is None:
            return None
        else:
            trial = new
            self._started += 1
            self._rung_of[trial] = 0
        rung = self._rung_of[trial]
        return Job(trial, self.ends[rung], ranks=rung < len(self.ends) - 1)

    def report(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            rung = self._rung_of[outcome.trial]
            if not outcome.alive or rung == len(self.ends) - 1:
                continue
            if self.goes_on(outcome.score, self._rungs[rung]):
                self._going.append(outcome.trial)
                self._rung_of[outcome.trial] += 1
            self._rungs[rung].append(outcome.score)

    def goes_on(self, score: float, before: Sequence[float]) -> bool:
        return not before or score <= float(np.percentile(before, 100 / self.eta))

    @property
    def paused(self) -> frozenset[int]:
        return frozenset(self._going)

    def most_paused(self, places: int) -> int:
        return 0
