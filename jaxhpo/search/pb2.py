"""Population-based bandits: explore by a model of what each point gained, not at random.

Source: Parker-Holder et al. 2020 (arXiv 2002.02518).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jaxhpo.search import gp
from jaxhpo.search.pbt import Pbt
from jaxhpo.search.plan import Assignment, Plan, Point, Result

MOST_ROWS = 150
"""The newest gains that the model is fitted to: its cost grows with their cube."""

CANDIDATES = 512

Gain = tuple[float, float, np.ndarray, float]
"""Step, loss before, point in the unit cube, and how much the loss fell per step."""


class Pb2(Pbt):
    """PBT that gives a copy the point whose gain per step a Gaussian process rates highest.

    The model knows time, loss before, point and gain of every member between two selections; a copy
    gets the point with the highest upper confidence bound at its donor's time and loss. Points that
    are already running count as seen, so that copies of one round spread. Before there are gains,
    copies explore as in PBT. Choices are places on a line, in the order given.
    """

    def first(self) -> Plan:
        self._gains: list[Gain] = []
        self._model: Model | None = None
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
        self._model = Model.of(self._gains[-MOST_ROWS:]) if len(self._gains) > 1 else None
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
        if self._model is None:
            return super()._explored(source, donor, running, rng)
        units = rng.random((CANDIDATES, len(self.space.dimensions)))
        seen = np.array([self.space.encode(point) for point in running])
        bounds = self._model.upper_bounds(float(donor.step), donor.score, units, seen)
        best_first = (self.space.decode(units[i]) for i in np.argsort(-bounds, kind="stable"))
        allowed = next((point for point in best_first if self.space.allows(point)), None)
        return self.space.sample(rng) if allowed is None else allowed


@dataclass(frozen=True)
class Model:
    """Gains per step, standardised and cut at two deviations, over time, loss before and point.

    Time and loss are scaled to the unit interval by what was seen of them.
    """

    process: gp.Process
    y: np.ndarray
    low: np.ndarray
    span: np.ndarray

    @classmethod
    def of(cls, gains: Sequence[Gain]) -> "Model":
        times, losses, units, changes = map(np.array, zip(*gains, strict=True))
        fixed = np.column_stack([times, losses])
        low, span = fixed.min(axis=0), np.ptp(fixed, axis=0) + 1e-8
        x = np.column_stack([(fixed - low) / span, units])
        y = np.clip((changes - changes.mean()) / (changes.std() + 1e-8), -2, 2)
        return cls(gp.Process.at(gp.fit(x, y), x), y, low, span)

    def upper_bounds(
        self, time: float, loss: float, units: np.ndarray, running: np.ndarray
    ) -> np.ndarray:
        """Mean plus kappa deviations f64[m] of the points f64[m, k], at a time and a loss.

        kappa^2 = 0.2 + max(0, log(0.4 n)). `running` are points that have no result yet: they lower
        the deviation around them (Desautels et al. 2014).
        """
        now = (np.array([time, loss]) - self.low) / self.span
        beside = lambda points: np.column_stack([np.tile(now, (len(points), 1)), points])
        at, known = beside(units), self.process.x
        seen = self.process
        if len(running):
            seen = gp.Process.at(seen.kernel, np.concatenate([known, beside(running)]))
        kappa = np.sqrt(0.2 + max(0.0, np.log(0.4 * len(known))))
        return self.process.mean(self.y, at) + kappa * seen.deviation(at)
