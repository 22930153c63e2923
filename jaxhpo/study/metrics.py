"""Metrics of predictions on the held-out examples, on the host in float64."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from jaxhpo.config.finetune import METRICS_OF


class Metric(NamedTuple):
    """`of(predictions, labels, classes)` from arrays [n]; NaN where it is not defined."""

    of: Callable[[np.ndarray, np.ndarray, int], float]
    higher_is_better: bool


def accuracy(predictions: np.ndarray, labels: np.ndarray, classes: int = 2) -> float:
    """The share that is right."""
    return float(np.mean(predictions == labels))


def f1(predictions: np.ndarray, labels: np.ndarray, classes: int = 2) -> float:
    """Harmonic mean of precision and recall of class 1; zero where neither has any."""
    return _f1_of(_confusion(predictions, labels, max(classes, 2)), 1)


def f1_macro(predictions: np.ndarray, labels: np.ndarray, classes: int) -> float:
    """The mean of each class's F1, of those that occur in labels or predictions."""
    table = _confusion(predictions, labels, classes)
    there = [c for c in range(classes) if table[c].sum() + table[:, c].sum()]
    return float(np.mean([_f1_of(table, c) for c in there]))


def matthews(predictions: np.ndarray, labels: np.ndarray, classes: int) -> float:
    """Matthews correlation; zero where all labels, or all predictions, are one class.

    Source: Gorodkin 2004, for any number of classes.
    """
    table = _confusion(predictions, labels, classes).astype(np.float64)
    truth, said, total = table.sum(1), table.sum(0), table.sum()
    above = np.trace(table) * total - truth @ said
    below = math.sqrt((total**2 - truth @ truth) * (total**2 - said @ said))
    return float(above / below) if below > 0 else 0.0


def pearson(predictions: np.ndarray, labels: np.ndarray, classes: int = 0) -> float:
    """Linear correlation; NaN where one side is constant."""
    x, y = (np.asarray(each, np.float64) for each in (predictions, labels))
    x, y = x - x.mean(), y - y.mean()
    below = math.sqrt((x @ x) * (y @ y))
    return float(x @ y / below) if below > 0 else math.nan


def spearman(predictions: np.ndarray, labels: np.ndarray, classes: int = 0) -> float:
    """Pearson's correlation of the ranks, ties sharing their mean rank."""
    return pearson(_ranks(predictions), _ranks(labels))


METRICS: dict[str, Metric] = {
    "accuracy": Metric(accuracy, True),
    "f1": Metric(f1, True),
    "f1-macro": Metric(f1_macro, True),
    "matthews": Metric(matthews, True),
    "pearson": Metric(pearson, True),
    "spearman": Metric(spearman, True),
}
"""What is measured of predictions; `loss` and `perplexity` come from the loss alone."""


def measure(
    task: str, loss: float, predictions: np.ndarray | None, labels: np.ndarray, classes: int
) -> dict[str, float]:
    """All metrics of a task by name, but for the loss. NaN where a prediction is."""
    found: dict[str, float] = {}
    for name in METRICS_OF[task]:
        if name == "perplexity":
            found[name] = math.exp(loss) if loss < 700 else math.inf
        elif name in METRICS and predictions is not None and not (name == "f1" and classes > 2):
            finite = bool(np.isfinite(predictions).all())
            found[name] = METRICS[name].of(predictions, labels, classes) if finite else math.nan
    return found


def cost(metric: str, loss: float, metrics: Mapping[str, float]) -> float:
    """What a search lowers: the loss, or the metric, negated where higher is better."""
    if metric == "loss":
        return loss
    higher = metric in METRICS and METRICS[metric].higher_is_better
    return -metrics[metric] if higher else metrics[metric]


def _confusion(predictions: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """How often a class (row) was called another (column), i64[C, C]."""
    codes = np.asarray(labels, np.int64) * classes + np.asarray(predictions, np.int64)
    return np.bincount(codes, minlength=classes**2).reshape(classes, classes)


def _f1_of(table: np.ndarray, place: int) -> float:
    found = 2.0 * table[place, place]
    either = table[place].sum() + table[:, place].sum()
    return float(found / either) if either else 0.0


def _ranks(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values)
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2.0)[place]
