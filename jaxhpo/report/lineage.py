"""Who descends from whom: pure functions from a run's history to segments, lives and curves.

A *segment* is what one place of the population did between two decisions. Its parent is the
segment whose state it started from, so following parents gives the whole past of a model however
often it changed its trial, and a copied winner reads as a curve that branches.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from jaxhpo.search.config import POPULATIONS

TRUNK, CHILDREN = "trunk", "children"
"""Groups of a forked run: what it inherited, and what it trained, whatever sets these apart."""
SEARCHES = frozenset({"search", "function"})


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


def trace(history: History) -> Lineage:
    """The segments of a run with their parents, lanes and final ranks.

    Those that a forked run inherited come first, so that a fork reads as one curve that branches.
    """
    reports = {report["index"]: report for report in history.reports}
    segments = _inherited(history)
    forked = bool(history.of("fork"))
    newest: dict[int, list[int]] = {}
    for segment in segments:
        newest.setdefault(segment.trial, []).append(segment.position)
    lanes: dict[int, int] = {}
    for plan in sorted(history.plans, key=lambda plan: plan["index"]):
        report = reports.get(plan["index"])
        if report is None:
            continue
        results = {result["trial"]: result for result in report["results"]}
        rows = [row for row in plan["assignments"] if row["trial"] in results]
        lanes = _lanes(rows, lanes)
        first = len(segments)
        for row in rows:
            parent = _parent(row, segments, newest)
            curves, rare = (
                report.get(name, {}).get(str(row["trial"]), {})
                for name in ("curves", "diagnostics")
            )
            row = {**row, "group": CHILDREN} if forked else row
            segments.append(
                _segment(
                    len(segments),
                    plan["index"],
                    lanes,
                    row,
                    results[row["trial"]],
                    parent,
                    curves,
                    rare,
                )
            )
        for segment in segments[first:]:
            newest.setdefault(segment.trial, []).append(segment.position)
    finals = _last_of_all(segments) if is_search(history) else _finals(segments)
    return Lineage(tuple(segments), finals, _ranks(segments, finals))


def _inherited(history: History) -> list[Segment]:
    """The lines of a fork's sources; none where the children count their steps anew."""
    found: list[Segment] = []
    for event in history.of("fork"):
        for trial, source in enumerate(event["sources"]):
            if "step" not in event["kept"]:
                continue
            parent = None
            for row in source["line"]:
                end = int(row["end"])
                segment = Segment(
                    position=len(found),
                    plan=-1,
                    lane=trial,
                    trial=trial,
                    group=TRUNK,
                    point=row["point"],
                    parent=parent,
                    parent_trial=None if parent is None else trial,
                    begin=int(row["begin"]),
                    end=end,
                    probe=0,
                    loss=number(row["loss"]),
                    score=number(row["score"]),
                    curves={k: tuple(map(number, v)) for k, v in row["curves"].items()},
                    diagnostics={},
                    inherited=True,
                )
                found.append(segment)
                parent = segment.position
    return found


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


def _numbers(curves: Mapping[str, Sequence[Any]]) -> dict[str, tuple[float, ...]]:
    return {name: tuple(number(x) for x in values) for name, values in curves.items()}


def _segment(position, plan, lanes, row, result, parent, curves, rare) -> Segment:
    source = row.get("parent")
    end = int(result["step"])
    return Segment(
        position=position,
        plan=plan,
        lane=lanes[row["trial"]],
        trial=row["trial"],
        group=row.get("group") or "",
        point=row.get("point", {}),
        parent=parent,
        parent_trial=None if source is None else source["trial"],
        begin=end - int(row["steps"]),
        end=end,
        probe=int(row.get("probe", 0)),
        loss=number(result["loss"]),
        score=number(result.get("score", result["loss"])),
        curves=_numbers(curves),
        diagnostics=_numbers(rare),
    )


def _parent(row, segments: list[Segment], newest: dict[int, list[int]]) -> int | None:
    """The segment whose end a row starts from: its parent's newest, or the one at `step`."""
    source = row.get("parent")
    candidates = [] if source is None else newest.get(source["trial"], [])
    if not candidates:
        return None
    if source.get("step") is not None:
        earlier = [at for at in candidates if segments[at].end <= source["step"]]
        candidates = earlier or candidates[:1]
    return candidates[-1]


def _lanes(rows, before: dict[int, int]) -> dict[int, int]:
    """A lane per trial of one plan: who carries on stays, others take free places in order."""
    stays = {row["trial"]: before[row["trial"]] for row in rows if row["trial"] in before}
    free = iter(sorted(set(range(len(rows) + len(before))) - set(stays.values())))
    lanes = dict(stays)
    for place, row in enumerate(rows):
        if row["trial"] not in stays:
            taken = set(lanes.values())
            lanes[row["trial"]] = (
                place if place not in taken else next(x for x in free if x not in taken)
            )
    return lanes


def _finals(segments: list[Segment]) -> tuple[int, ...]:
    """Each group's last report, ranked."""
    last: dict[str, int] = {}
    for segment in segments:
        last[segment.group] = max(segment.plan, last.get(segment.group, 0))
    ended = [segment for segment in segments if segment.plan == last[segment.group]]
    return tuple(row.position for row in sorted(ended, key=lambda row: score_order(row.score)))


def is_search(history: History) -> bool:
    """Whether trials come and go, rather than tune themselves while they train."""
    start = history.start or {}
    config = start.get("config") or {}
    name = (config.get("search") or {}).get("scheduler", "")
    searched = start.get("command") in SEARCHES or (
        start.get("command") == "finetune" and bool(config.get("space"))
    )
    return searched and name not in POPULATIONS


def _last_of_all(segments: list[Segment]) -> tuple[int, ...]:
    """Every trial's last report: those that came furthest first, by score."""
    last = {segment.trial: segment for segment in segments}
    order = lambda row: (not math.isfinite(row.loss), -row.end, score_order(row.score))
    return tuple(row.position for row in sorted(last.values(), key=order))


def _ranks(segments: list[Segment], finals: tuple[int, ...]) -> tuple[int | None, ...]:
    ranks: list[int | None] = [None] * len(segments)
    seen: dict[str, int] = {}
    for position in finals:
        group = segments[position].group
        seen[group] = seen.get(group, 0) + 1
        at: int | None = position
        while at is not None and ranks[at] is None:
            ranks[at] = seen[group]
            at = segments[at].parent
    return tuple(ranks)
