"""A run's events as segments with their parents, lanes and final ranks."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from jaxhpo.report.lineage import History, Lineage, Segment, number, score_order
from jaxhpo.search.config import POPULATIONS

TRUNK, CHILDREN = "trunk", "children"
"""Groups of a forked run: what it inherited, and what it trained, whatever sets these apart."""

SEARCHES = frozenset({"search", "function"})


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
