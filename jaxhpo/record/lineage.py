"""Where a trial's weights come from, read off the log: its line back to the newborn."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from jaxhpo.record.history import Event, History

POINTS = 200
"""At most so many points of a training curve are handed on with a line."""


def run_id(history: History) -> str:
    """The same for the same run wherever its directory is moved: a digest of its first event."""
    text = json.dumps(history.start, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def line(history: History, trial: int, index: int) -> list[dict[str, Any]]:
    """The segments that made a trial's weights by report `index`, newborn first.

    Each has `run`, `trial`, `begin`, `end`, `loss`, `score`, `point` and `curves`; those that a
    forked run inherited come first, under their own run's name. Raises LookupError if the trial is
    not in that report.
    """
    name = history.path.parent.name
    found: list[dict[str, Any]] = []
    at, who = index, trial
    while True:
        row = _row(history.plans[at], who)
        result = _result(history.reports[at], who)
        found.append(_segment(name, row, result, history.reports[at]))
        parent = row["parent"]
        if parent is None:
            break
        before = _where(history, parent, at)
        if before is None:
            found += [dict(segment) for segment in reversed(inherited(history, parent["trial"]))]
            break
        at, who = before, parent["trial"]
    return list(reversed(found))


def inherited(history: History, trial: int) -> Sequence[Mapping[str, Any]]:
    """The line that a forked run was given for one of its sources; empty of any other trial."""
    sources = history.fork["sources"] if history.fork else []
    return sources[trial]["line"] if 0 <= trial < len(sources) else ()


def thinned(segments: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The line with at most about POINTS points of its training curves."""
    total = sum(len(segment["curves"].get("step", ())) for segment in segments)
    stride = -(-total // POINTS) or 1
    rows = []
    for segment in segments:
        curves = {
            name: values[(len(values) - 1) % stride :: stride]
            for name, values in segment["curves"].items()
        }
        rows.append({**segment, "curves": curves})
    return rows


def _where(history: History, parent: Mapping[str, Any], before: int) -> int | None:
    """The report after which a parent's state was taken; None where another run has it."""
    for at in range(before - 1, -1, -1):
        result = _result(history.reports[at], parent["trial"])
        if result is None:
            continue
        if parent.get("step") is None or result["step"] == parent["step"]:
            return at
    return None


def _row(plan: Event, trial: int) -> Mapping[str, Any]:
    for row in plan["assignments"]:
        if row["trial"] == trial:
            return row
    known = sorted(row["trial"] for row in plan["assignments"])
    raise LookupError(f"no trial {trial} in plan {plan['index']}; there are {known}")


def _result(report: Event, trial: int) -> Mapping[str, Any] | None:
    return next((row for row in report["results"] if row["trial"] == trial), None)


def _segment(
    run: str, row: Mapping[str, Any], result: Mapping[str, Any] | None, report: Event
) -> dict[str, Any]:
    if result is None:
        raise LookupError(f"no trial {row['trial']} in report {report['index']}")
    return {
        "run": run,
        "trial": row["trial"],
        "begin": result["step"] - row["steps"],
        "end": result["step"],
        "loss": result["loss"],
        "score": result["score"],
        "point": dict(row["point"]),
        "curves": dict(report.get("curves", {}).get(str(row["trial"]), {})),
    }
