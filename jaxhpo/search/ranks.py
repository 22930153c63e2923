"""How well early scores foretell final ones."""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from jaxhpo.search.plan import Plan, Report, by_trial


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Rank correlation of two equally long rows; equal values share the mean of their ranks. NaN
    where a row has fewer than two different values.

    >>> round(spearman([0.70, 0.72, 0.68, 0.75], [0.80, 0.83, 0.79, 0.86]), 9)
    1.0
    """
    x, y = _ranks(np.asarray(a, float)), _ranks(np.asarray(b, float))
    x, y = x - x.mean(), y - y.mean()
    spread = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / spread if spread else math.nan


def early_and_final(
    history: Iterable[tuple[Plan, Report]], early: int, final: int
) -> dict[int, tuple[float, float]]:
    """Trial -> its scores at the steps `early` and `final`, where it has finite ones at both.

    Survivors alone are a biased sample: `search.continued` runs some of the others on too.
    """
    scores: dict[int, dict[int, float]] = {}
    for plan, report in history:
        for trial, result in by_trial(plan, report).items():
            if math.isfinite(result.score):
                scores.setdefault(trial, {})[result.step] = result.score
    both = {trial: at for trial, at in scores.items() if early in at and final in at}
    return {trial: (at[early], at[final]) for trial, at in both.items()}


def _ranks(values: np.ndarray) -> np.ndarray:
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return ((ends - counts + 1 + ends) / 2)[which]
