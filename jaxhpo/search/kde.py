"""The proposer of BOHB: densities of good and of bad points. Source: Falkner et al. 2018 (arXiv
1807.01774), with the settings of its reference implementation."""

from collections.abc import Sequence

import numpy as np

from jaxhpo.search.distributions import Choice
from jaxhpo.search.plan import Point
from jaxhpo.search.space import Space

TOP_SHARE = 0.15
RANDOM_SHARE = 1 / 3
CANDIDATES = 64
LEAST_BANDWIDTH = 1e-3
WIDENED = 3.0
"""Candidates are drawn with so many times the bandwidth of the good points."""


class Kde:
    """A third of the points at random; the others where good points are dense and bad ones are not.

    The model is that of the longest trials of which there are enough: two more than dimensions plus
    one. A point that diverged is among the bad ones of every length, and is not proposed again.
    """

    def __init__(self, space: Space, seed: int, initial: Sequence[Point] = ()) -> None:
        self.space, self.seed = space, seed
        self.initial = tuple(space.check(point) for point in initial)
        self._choices = np.array(
            [
                len(d.distribution.values) if isinstance(d.distribution, Choice) else 0
                for d in space.dimensions
            ]
        )
        self.start()

    @property
    def limit(self) -> None:
        return None

    def foreseen(self, count: int) -> None:
        return None

    def start(self) -> None:
        self._points: list[Point] = []
        self._scores: dict[int, dict[int, float]] = {}  # step -> trial -> score
        self._diverged: set[int] = set()

    def propose(self, trial: int) -> Point:
        rng = np.random.default_rng([self.seed, trial])
        self._points.append(self._proposal(rng))
        return self._points[-1]

    def report(self, trial: int, step: int, score: float) -> bool:
        if np.isfinite(score):
            self._scores.setdefault(step, {})[trial] = score
        else:
            self._diverged.add(trial)
        return True

    def leave(self, trial: int) -> None:
        pass

    @property
    def _refused(self) -> list[Point]:
        return [self._points[trial] for trial in self._diverged]

    def _proposal(self, rng: np.random.Generator) -> Point:
        if len(self._points) < len(self.initial):
            return self.initial[len(self._points)]
        split = self._split() if rng.random() >= RANDOM_SHARE else None
        best = None if split is None else self._best(*split, rng)
        return self.space.sample_new(rng, self._refused) if best is None else best

    def _split(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Good and bad points f64[n, dimensions] of the longest trials that are enough."""
        least = len(self.space.dimensions) + 1
        for step in sorted(self._scores, reverse=True):
            scores = {t: s for t, s in self._scores[step].items() if t not in self._diverged}
            order = [*sorted(scores, key=lambda t: (scores[t], t)), *sorted(self._diverged)]
            if len(order) >= least + 2 and len(scores) >= least:
                units = np.stack([self.space.encode(self._points[trial]) for trial in order])
                good = max(least, int(TOP_SHARE * len(order)))
                return units[:good], units[good:]
        return None

    def _best(self, good: np.ndarray, bad: np.ndarray, rng: np.random.Generator) -> Point | None:
        """The candidate around good points whose density ratio is highest; None if none may be."""
        narrow, wide = self._bandwidths(good), self._bandwidths(bad)
        units = [self._candidate(good, WIDENED * narrow, rng) for _ in range(CANDIDATES)]
        points = [self.space.decode(unit) for unit in units]
        allowed = [p for p in points if self.space.allows(p) and p not in self._refused]
        if not allowed:
            return None
        # encoded anew: a candidate counts as what it decodes to
        units = np.stack([self.space.encode(point) for point in allowed])
        ratio = self._log_density(units, good, narrow) - self._log_density(units, bad, wide)
        return allowed[int(ratio.argmax())]

    def _bandwidths(self, units: np.ndarray) -> np.ndarray:
        """The rule of thumb for a normal density, one bandwidth a dimension."""
        count, dimensions = units.shape
        widths = 1.06 * units.std(axis=0) * count ** (-1 / (4 + dimensions))
        # of a choice: the chance of another value, at most that of all values alike
        most = np.where(self._choices > 1, 1 - 1 / np.maximum(self._choices, 1), np.inf)
        return np.clip(widths, LEAST_BANDWIDTH, most)

    def _candidate(
        self, good: np.ndarray, widths: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        center = good[rng.integers(len(good))]
        drawn = center + widths * rng.standard_normal(len(center))
        outside = (drawn < 0) | (drawn > 1)
        drawn = np.where(outside, rng.random(len(center)), drawn)
        other = rng.random(len(center)) < widths
        chosen = np.where(other, rng.random(len(center)), center)
        return np.where(self._choices > 0, chosen, drawn)

    def _log_density(
        self, units: np.ndarray, centers: np.ndarray, widths: np.ndarray
    ) -> np.ndarray:
        """f64[n] of a product of kernels: normal, and Aitchison and Aitken's for choices."""
        apart = np.abs(units[:, None] - centers[None])
        normal = np.exp(-0.5 * (apart / widths) ** 2) / (widths * np.sqrt(2 * np.pi))
        others = np.maximum(self._choices - 1, 1)
        categorical = np.where(apart < 1e-9, 1 - widths, widths / others)
        kernels = np.where(self._choices > 0, categorical, normal)
        return np.log(np.maximum(kernels.prod(axis=2).mean(axis=1), 1e-300))
