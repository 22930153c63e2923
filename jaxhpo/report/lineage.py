"""Who descends from whom: segments, and pure functions from them to lives and curves.

A *segment* is what one place of the population did between two decisions. Its parent is the
segment whose state it started from, so following parents gives the whole past of a model however
often it changed its trial, and a copied winner reads as a curve that branches.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class History(Protocol):
    """What of `jaxhpo.record.history` is read here: the events that hold, rewinds applied."""

    @property
    def rewinds(self) -> int: ...

    @property
    def rewound_seconds(self) -> float: ...

    @property
    def start(self) -> Mapping[str, Any] | None: ...

    @property
    def finish(self) -> Mapping[str, Any] | None: ...

    @property
    def plans(self) -> Sequence[Mapping[str, Any]]: ...

    @property
    def reports(self) -> Sequence[Mapping[str, Any]]: ...

    def of(self, kind: str) -> Sequence[Mapping[str, Any]]: ...


@dataclass(frozen=True)
class Segment:
    """One reported row of one plan; `begin` and `end` are steps of its model, ancestors included.

    `parent` is the position in `Lineage.segments` of the segment it continues, None for a newborn.
    `curves` maps loss, lr, grad_norm and shares clipped to training values at the steps under
    "step"; `diagnostics` norms by role and effective learning rates, at steps of their own.
    """

    position: int
    plan: int
    lane: int
    trial: int
    group: str
    point: Mapping[str, Any]
    parent: int | None
    parent_trial: int | None
    begin: int
    end: int
    probe: int
    loss: float
    score: float
    curves: Mapping[str, tuple[float, ...]]
    diagnostics: Mapping[str, tuple[float, ...]]
    inherited: bool = False
    """trained by the run that this one was forked from"""

    @property
    def is_exploit(self) -> bool:
        return self.parent_trial is not None and self.parent_trial != self.trial


@dataclass(frozen=True)
class Life:
    """One trial: where it came from and what became of it. `losses` maps step to held-out loss."""

    trial: int
    group: str
    born: int
    parent: int | None
    points: Mapping[int, Mapping[str, Any]]
    losses: Mapping[int, float]


@dataclass(frozen=True)
class Lineage:
    """All reported segments in the order they ran, with the last ones ranked.

    `finals` are positions of the last segments, best score first and NaN last. `ranks[i]` is the
    best final rank (from 1) among the descendants of segment i within its group, None when its line
    died out.
    """

    segments: tuple[Segment, ...]
    finals: tuple[int, ...]
    ranks: tuple[int | None, ...]


def lives(lineage: Lineage) -> dict[int, Life]:
    """Every trial of a run by its id."""
    rows: dict[int, list[Segment]] = {}
    for segment in lineage.segments:
        rows.setdefault(segment.trial, []).append(segment)
    return {
        trial: Life(
            trial=trial,
            group=own[0].group,
            born=own[0].begin,
            parent=own[0].parent_trial if own[0].is_exploit else None,
            points={segment.begin: segment.point for segment in own},
            losses={segment.end: segment.loss for segment in own},
        )
        for trial, own in rows.items()
    }


def chain(lineage: Lineage, position: int) -> tuple[Segment, ...]:
    """The segments that led to one, newborn first, itself last."""
    line: list[Segment] = []
    at: int | None = position
    while at is not None:
        line.append(lineage.segments[at])
        at = lineage.segments[at].parent
    return tuple(reversed(line))


def last_of(lineage: Lineage, trial: int) -> Segment:
    """The newest segment of a trial. Raises `LookupError` naming the trials that exist."""
    own = [segment for segment in lineage.segments if segment.trial == trial]
    if not own:
        known = ", ".join(str(key) for key in sorted({row.trial for row in lineage.segments}))
        raise LookupError(f"trial {trial} has no report; reported trials: {known or 'none'}")
    return own[-1]


def ancestors(lineage: Lineage, trial: int) -> tuple[int, ...]:
    """The trials a trial descends from: itself first, the newborn last."""
    line = reversed(chain(lineage, last_of(lineage, trial).position))
    return tuple(dict.fromkeys(segment.trial for segment in line))


def inherited_curve(lineage: Lineage, trial: int) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Steps and held-out losses of a trial's newest model, its ancestors' part included."""
    line = chain(lineage, last_of(lineage, trial).position)
    return tuple(segment.end for segment in line), tuple(segment.loss for segment in line)


def tips(lineage: Lineage) -> tuple[Segment, ...]:
    """The segments that nothing continues on the same trial: one for the end of every life."""
    continued = {
        row.parent for row in lineage.segments if row.parent is not None and not row.is_exploit
    }
    return tuple(row for row in lineage.segments if row.position not in continued)


def final_results(lineage: Lineage) -> tuple[Segment, ...]:
    """The last segment of every surviving member, best score first, NaN last."""
    return tuple(lineage.segments[position] for position in lineage.finals)


def number(value: Any) -> float:
    """A float from the log; the strings "NaN", "Infinity" and "-Infinity" stand for themselves."""
    return math.nan if value is None else float(value)


def joined(lineage: Lineage, row: Segment, name: str) -> tuple[list[float], list[float]]:
    """A segment's training curve, from its parent's last point on so that drawn lines meet."""
    steps, values = list(row.curves.get("step", ())), list(row.curves.get(name, ()))
    parent = None if row.parent is None else lineage.segments[row.parent]
    if parent is not None and steps and parent.curves.get(name):
        steps.insert(0, parent.curves["step"][-1])
        values.insert(0, parent.curves[name][-1])
    return steps, values


def score_order(score: float) -> tuple[bool, float]:
    """Sort key: lower is better, anything not a number comes last."""
    return math.isnan(score), 0.0 if math.isnan(score) else score
