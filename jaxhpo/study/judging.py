"""From what a member was examined on to the result that ranks it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxhpo.search.plan import Result
from jaxhpo.study import incumbent
from jaxhpo.study.incumbent import Found

Measure = Callable[[float, np.ndarray | None], Mapping[str, float]]
"""Metrics from the mean loss, and from the predictions [n] where the task makes any."""


@dataclass(frozen=True)
class Judge:
    """What ranks: the held-out loss, or with `metric` what `cost` makes of it, lower is better.

    `everyone` says that trials are compared wherever they ended, for each had a length of its own.
    `shares` f64[E] is what each held-out batch counts, one in the mean: answers differ in length,
    and a loss per token is no mean of batches.
    """

    measure: Measure | None = None
    metric: str = "loss"
    cost: Callable[[str, float, Mapping[str, float]], float] | None = None
    everyone: bool = False
    shares: np.ndarray | None = None

    def result(self, trial: int, step: int, raw: Any, scored: Any) -> Result:
        """The result of one trial: means in float64 of the device's numbers."""
        loss, metrics = self._measured(raw)
        score, own = self._measured(scored)
        samples = tuple(self._losses(scored).tolist())
        if self.metric != "loss":
            score = self._cost(score, own)
            samples = (score,)
        return Result(trial, step, loss, score, samples, metrics)

    def of(self, result: Result) -> float:
        """What a result is ranked by at the end: the trial's own weights, not a probe's."""
        if self.metric == "loss" or not math.isfinite(result.loss):
            return result.loss
        return self._cost(result.loss, result.metrics)

    def best_of(self, results: Found, everyone: bool = False) -> Result:
        """The best trial, see `incumbent.best_of`."""
        return incumbent.best_of(results, everyone or self.everyone, self.of)

    def mean(self, found: Any) -> float:
        """The loss of what a member was examined on, in float64."""
        return float(np.mean(self._losses(found), dtype=np.float64))

    def _measured(self, found: Any) -> tuple[float, dict[str, float]]:
        loss = self.mean(found)
        if self.measure is None:
            return loss, {}
        predictions = found["predictions"] if isinstance(found, Mapping) else None
        return loss, dict(self.measure(loss, predictions))

    def _losses(self, found: Any) -> np.ndarray:
        losses = np.asarray(found["loss"] if isinstance(found, Mapping) else found)
        return losses if self.shares is None else losses * self.shares

    def _cost(self, loss: float, metrics: Mapping[str, float]) -> float:
        return loss if self.cost is None else self.cost(self.metric, loss, metrics)
