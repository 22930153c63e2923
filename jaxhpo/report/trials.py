"""The trials of a search as curves, and the steps at which they can be compared."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxhpo.report.lineage import Lineage, Segment


@dataclass(frozen=True)
class Curve:
    """One trial: held-out losses (raw) and scores (what ranked) at the steps it was measured at."""

    trial: int
    point: Mapping[str, Any]
    steps: tuple[int, ...]
    losses: tuple[float, ...]
    scores: tuple[float, ...]
    parent: int | None = None

    def at(self, step: int) -> float | None:
        """The score at a step, None where the trial was not measured there."""
        return self.scores[self.steps.index(step)] if step in self.steps else None


def trial_curves(lineage: Lineage) -> tuple[Curve, ...]:
    """Every trial of a run in the order of their ids."""
    rows: dict[int, list[Segment]] = {}
    for segment in lineage.segments:
        rows.setdefault(segment.trial, []).append(segment)
    return tuple(
        Curve(
            trial=trial,
            point=own[-1].point,
            steps=tuple(row.end for row in own),
            losses=tuple(row.loss for row in own),
            scores=tuple(row.score for row in own),
            parent=own[0].parent_trial if own[0].is_exploit else None,
        )
        for trial, own in sorted(rows.items())
    )


def rungs(curves: Sequence[Curve]) -> tuple[tuple[int, int, int], ...]:
    """`(step, came, went on)` where trials were let go or paused, in order of steps.

    Every step at which at least one trial ended before the last, with how many were measured there
    and how many of these went further.
    """
    last = max((curve.steps[-1] for curve in curves), default=0)
    ends = Counter(curve.steps[-1] for curve in curves)
    found = []
    for step in sorted(step for step in ends if step < last):
        came = sum(step in curve.steps for curve in curves)
        found.append((step, came, came - ends[step]))
    return tuple(found)


def comparable(curves: Sequence[Curve], least: int = 2) -> tuple[int, tuple[Curve, ...]]:
    """The step at which most trials can be compared, the largest such, and those trials.

    Trials stopped early have no later score, so what all are judged by is the lowest rung.
    """
    counts = Counter(
        step for c in curves for step, score in zip(c.steps, c.scores, strict=True)
        if math.isfinite(score)
    )  # fmt: skip
    if not counts or max(counts.values()) < least:
        return 0, ()
    most = max(counts.values())
    step = max(step for step, count in counts.items() if count == most)
    scores = ((curve, curve.at(step)) for curve in curves)
    return step, tuple(c for c, score in scores if score is not None and math.isfinite(score))


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's rank correlation, ties sharing their mean rank; NaN where one side is constant.

    >>> round(spearman([.70, .72, .68, .75], [.80, .83, .79, .82]), 3)
    0.8
    """
    if len(a) != len(b) or len(a) < 2:
        return math.nan
    x, y = _ranks(a), _ranks(b)
    mean = (len(a) + 1) / 2
    products = sum((p - mean) * (q - mean) for p, q in zip(x, y, strict=True))
    spread = math.sqrt(sum((p - mean) ** 2 for p in x) * sum((q - mean) ** 2 for q in y))
    return products / spread if spread else math.nan


def _ranks(values: Sequence[float]) -> list[float]:
    ordered = sorted(values)
    first = {value: ordered.index(value) for value in set(values)}
    counts = Counter(values)
    return [first[value] + (counts[value] + 1) / 2 for value in values]
