"""What a run found, in numbers: one plain dictionary for the page and for the command line."""

import math
import statistics
from collections import Counter
from collections.abc import Mapping
from typing import Any

from jaxhpo.report.lineage import (
    History,
    Lineage,
    Segment,
    ancestors,
    final_results,
    number,
    score_order,
)
from jaxhpo.report.tracing import trace

POPULATION = "pbt"
CONTROL = "fixed"


def summarise(history: History) -> dict[str, Any]:
    """Outcome, members, gain and costs of a run, finished or not.

    Losses are nats per token, `bits_per_byte` is None where the tokens' length in bytes is unknown.
    `gain` holds best and median of the fixed group minus PBT's best: positive means that PBT won;
    None without both groups. `status` is "finished", "stopped" or "unfinished".
    """
    lineage = trace(history)
    members = _members(history, lineage)
    best = _best(history, members)
    groups = _groups(history, members)
    return {
        "status": _status(history),
        "best": best,
        "unit": unit(history),
        "metric": ((history.start or {}).get("config") or {}).get("metric", "loss"),
        "baselines": {row["name"]: _baseline(row) for row in history.of("baseline")},
        "groups": groups,
        "gain": _gain(groups),
        "members": members,
        "ancestors": ancestors(lineage, best["trial"]) if best else (),
        "costs": _costs(history, lineage),
    }


def unit(history: History) -> str:
    """What losses are counted in."""
    task = ((history.start or {}).get("config") or {}).get("task")
    if task == "regression":
        return "squared error"
    return "nats per example" if task in ("classification", "pairs") else "nats per token"


def bits_per_byte(loss: float, history: History) -> float | None:
    """Nats per token as bits per byte of text."""
    width = (history.start or {}).get("bytes_per_token")
    return loss / math.log(2) / float(width) if width else None


def _status(history: History) -> str:
    if history.finish is not None:
        return "finished"
    return "stopped" if history.of("stop") else "unfinished"


def _members(history: History, lineage: Lineage) -> list[dict[str, Any]]:
    rows = []
    measured = {
        row["trial"]: {name: number(x) for name, x in row.get("metrics", {}).items()}
        for report in history.reports
        for row in report["results"]
    }
    for rank, segment in enumerate(final_results(lineage), start=1):
        line = ancestors(lineage, segment.trial)
        rows.append(
            {
                "rank": rank,
                "trial": segment.trial,
                "group": segment.group,
                "parent": line[1] if len(line) > 1 else None,
                "step": segment.end,
                "loss": segment.loss,
                "score": segment.score,
                "bits_per_byte": bits_per_byte(segment.loss, history),
                "metrics": measured.get(segment.trial, {}),
                "point": dict(segment.point),
            }
        )
    return rows


def _best(history: History, members: list[dict[str, Any]]) -> dict[str, Any] | None:
    """A finished run's own verdict, else the leading finite member, of the tuned group if any."""
    said = history.finish.get("best") if history.finish else None
    if said:
        member = next((row for row in members if row["trial"] == said["trial"]), {})
        loss = number(said["loss"])
        bits = said.get("bits_per_byte")
        bits = bits_per_byte(loss, history) if bits is None else number(bits)
        step = said.get("step", member.get("step"))
        measured = said.get("metrics", member.get("metrics", {}))
        measured = {name: number(x) for name, x in measured.items()}
        best = {"group": "", "point": {}, "parent": None, **member, "metrics": measured}
        return {**best, "trial": said["trial"], "step": step, "loss": loss, "bits_per_byte": bits}
    tuned = [row for row in members if row["group"] == POPULATION] or members
    finite = [row for row in tuned if math.isfinite(row["loss"])]
    return dict(finite[0]) if finite else None


def _groups(history: History, members: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    if history.finish and history.finish.get("groups"):
        said = history.finish["groups"]
        return {name: {key: number(x) for key, x in row.items()} for name, row in said.items()}
    losses: dict[str, list[float]] = {}
    for row in members:
        losses.setdefault(row["group"], []).append(row["loss"])
    return {
        name: {"best": min(values, key=score_order), "median": _median(values)}
        for name, values in losses.items()
        if name
    }


def _median(values: list[float]) -> float:
    """The median with NaN as the worst value: a broken member counts and does not poison."""
    return statistics.median([math.inf if math.isnan(x) else x for x in values])


def _gain(groups: Mapping[str, Mapping[str, float]]) -> dict[str, float] | None:
    if POPULATION not in groups or CONTROL not in groups:
        return None
    best = groups[POPULATION]["best"]
    return {key: groups[CONTROL][key] - best for key in ("best", "median")}


def _baseline(row: Mapping[str, Any]) -> dict[str, float]:
    return {"loss": number(row["loss"]), "bits_per_byte": number(row.get("bits_per_byte"))}


def _costs(history: History, lineage: Lineage) -> dict[str, Any]:
    """Steps, seconds and tokens; `seconds` is the wall time, None of an unfinished run.

    A segment is one program after another without a stop in between, so its time is shared out by
    its training steps and its probe steps; evaluation goes with both.
    """
    trained, probed = _steps_by_plan(lineage)
    seconds = {row["index"]: number(row.get("seconds", 0)) for row in history.reports}
    train = sum(s * trained[i] / max(trained[i] + probed[i], 1) for i, s in seconds.items())
    whole = sum(seconds.values())
    tokens = sum(int(report.get("tokens", 0)) for report in history.reports)
    finish, begun = history.finish or {}, history.start or {}
    wall = finish.get("wall_seconds", finish.get("seconds"))
    steps, probes = sum(trained.values()), sum(probed.values())
    return {
        "member_steps": steps,
        "probe_steps": probes,
        "probe_share": probes / (steps + probes) if steps + probes else 0.0,
        "useful_share": number(finish["useful"]) if "useful" in finish else None,
        "seconds": None if wall is None else number(wall),
        "elapsed_seconds": number(finish["time"]) - number(begun["time"])
        if "time" in finish and "time" in begun
        else None,
        "rewinds": history.rewinds,
        "rewound_seconds": history.rewound_seconds,
        "segment_seconds": whole,
        "train_seconds": train,
        "probe_seconds": whole - train,
        "compile_seconds": _compiling(history),
        "tokens": tokens,
        "tokens_per_second": tokens / whole if whole > 0 else None,
        "exploits": sum(row.is_exploit for row in lineage.segments if not _forked(lineage, row)),
        "trials": len({row.trial for row in lineage.segments if not row.inherited}),
        "rounds": len(seconds),
        **_utilisation(history),
    }


def _utilisation(history: History) -> dict[str, Any]:
    """Step time, MFU, goodput and memory; None is what the log does not have.

    MFU is the mean over segments, each as long as it took. `peak_flops` is what one device does at
    its peak, by `peak_source`, as the newest process measured it.
    """
    reports = [row for row in history.reports if number(row.get("seconds")) > 0]
    rated = [row for row in reports if row.get("mfu") is not None]
    steps = [number(row["step_seconds"]) for row in reports if row.get("step_seconds") is not None]
    seconds = sum(number(row["seconds"]) for row in rated)
    newest = (history.finish or {}, *reversed(history.reports))
    hardware = (history.of("hardware") or ({},))[-1]
    most = lambda name: max((row[name] for row in reports if row.get(name)), default=None)
    names = ("device_kind", "devices", "peak_flops", "peak_source")
    return {
        "step_seconds": statistics.median(steps) if steps else None,
        "mfu": sum(row["mfu"] * row["seconds"] for row in rated) / seconds if rated else None,
        "goodput": next((row["goodput"] for row in newest if row.get("goodput")), None),
        "device_bytes": most("device_bytes"),
        "host_bytes": most("host_bytes"),
        **{name: hardware.get(name) for name in names},
    }


def _compiling(history: History) -> float:
    """Seconds in which something was compiled: programs are compiled side by side."""
    ends = [(number(row["time"]), number(row["seconds"])) for row in history.of("compile")]
    total, until = 0.0, -math.inf
    for begin, end in sorted((end - seconds, end) for end, seconds in ends):
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    return total


def _steps_by_plan(lineage: Lineage) -> tuple[Counter[int], Counter[int]]:
    trained, probed = Counter[int](), Counter[int]()
    for row in lineage.segments:
        if not row.inherited:
            trained[row.plan] += row.end - row.begin
            probed[row.plan] += row.probe
    return trained, probed


def _forked(lineage: Lineage, row: Segment) -> bool:
    """Does this segment start from another run's state?"""
    return row.parent is None or lineage.segments[row.parent].inherited
