"""Population-based bandits: explore by a model of what each point gained, not at random.

Source: Parker-Holder et al. 2020 (arXiv 2002.02518).
"""

from collections.abc import Sequence

import numpy as np

from jaxhpo.search import gp
from jaxhpo.search.pbt import Pbt
from jaxhpo.search.plan import Assignment, Plan, Point, Result

MOST_ROWS = 200
"""The newest gains that the model is fitted to: its cost grows with their cube."""

CANDIDATES = 1024


class Pb2(Pbt):
    """PBT that gives a copy the point whose gain per step a Gaussian process rates highest.

    The model knows time, loss before, point and gain of every member between two selections; a copy
    gets the point with the highest upper confidence bound at its donor's time and loss. Points that
    are already running count as seen, so that copies of one round spread. Before there are gains,
    copies explore as in PBT. Choices are places on a line, in the order given.
    """

    def first(self) -> Plan:
        self._gains: list[tuple[float, float, np.ndarray, float]] = []
        self._last: dict[int, Result] = {}
        return super().first()

    def _selected(self, rows: list[Assignment], results: list[Result]) -> list[Assignment]:
        for row, result in zip(rows, results, strict=True):
            before = self._last.get(row.trial)
            if before is not None and np.isfinite(result.score) and np.isfinite(before.score):
                gain = (before.score - result.score) / (result.step - before.step)
                units = self.space.encode(row.point)
                self._gains.append((float(result.step), before.score, units, gain))
        self._last = {result.trial: result for result in results}
        selected = super()._selected(rows, results)
        for row in selected:
            if row.parent is not None and row.trial not in self._last:
                self._last[row.trial] = self._last[row.parent.trial]
        return selected

    def _explored(
        self,
        source: Assignment,
        donor: Result,
        running: Sequence[Point],
        rng: np.random.Generator,
    ) -> Point:
        if len(self._gains) < 2:
            return super()._explored(source, donor, running, rng)
        times, losses, units, gains = map(np.array, zip(*self._gains[-MOST_ROWS:], strict=True))
        fixed = np.column_stack([times, losses])
        low, span = fixed.min(axis=0), np.ptp(fixed, axis=0) + 1e-8
        now = (np.array([float(donor.step), donor.score]) - low) / span
        x = np.column_stack([(fixed - low) / span, units])
        y = np.clip((gains - gains.mean()) / (gains.std() + 1e-8), -2, 2)
        points = [self.space.sample(rng) for _ in range(CANDIDATES)]
        at = lambda some: np.array([[*now, *self.space.encode(point)] for point in some])
        bounds = upper_bounds(x, y, at(points), at(running).reshape(-1, x.shape[1]))
        return points[int(bounds.argmax())]


def upper_bounds(x: np.ndarray, y: np.ndarray, at: np.ndarray, running: np.ndarray) -> np.ndarray:
    """Mean plus kappa deviations f64[m] of a process fitted to y f64[n] at x f64[n, 1 + k].

    kappa^2 = 0.2 + max(0, log(0.4 n)). `running` are points without a result: they lower the
    deviation around them (Desautels et al. 2014).
    """
    kernel = gp.fit(x, y)
    mean, _ = gp.predict(kernel, x, y, at)
    seen = np.concatenate([x, running])
    _, deviation = gp.predict(kernel, seen, np.zeros(len(seen)), at)
    kappa = np.sqrt(0.2 + max(0.0, np.log(0.4 * len(x))))
    return mean + kappa * deviation
