"""Speed: tokens a second in each segment, and where the time went."""

from collections.abc import Mapping
from typing import Any

from jaxhpo.report import canvas
from jaxhpo.report.lineage import History, Lineage, number


def throughput(history: History, lineage: Lineage, summary: Mapping[str, Any]) -> Any:
    """Tokens a second in each segment, beside what the seconds were spent on."""
    rounds = [
        (report["index"], report["tokens"] / number(report["seconds"]))
        for report in history.reports
        if number(report.get("seconds")) > 0 and report.get("tokens")
    ]
    if not rounds:
        return None
    figure, (left, right) = canvas.sheet(2.9, 1, 2, width_ratios=(1.25, 1))
    _speed(left, rounds)
    _shares(right, summary["costs"])
    return figure


def _speed(axis: Any, rounds: list[tuple[int, float]]) -> None:
    top = max(speed for _, speed in rounds)
    unit, name = (1e6, "million tokens/s") if top >= 2e6 else (1e3, "thousand tokens/s")
    axis.bar(
        *zip(*((i, speed / unit) for i, speed in rounds), strict=True),
        color=canvas.BLUE,
        width=0.75,
    )
    ordered = sorted(speed for _, speed in rounds)
    median = ordered[len(ordered) // 2] / unit
    axis.set_ylim(0, 1.08 * top / unit)
    axis.set(title=f"all members together (median {median:.3g})", xlabel="segment", ylabel=name)
    axis.grid(axis="x", visible=False)
    axis.xaxis.get_major_locator().set_params(integer=True)


def time_shares(costs: Mapping[str, Any]) -> dict[str, float]:
    """Seconds by purpose; the rest of a finished run went to neither segments nor compiler: of one
    that was resumed, also the time in between."""
    shares = {
        "training": costs["train_seconds"],
        "probes": costs["probe_seconds"],
        "compilation": costs["compile_seconds"],
    }
    if costs["rewound_seconds"]:
        shares["done again"] = costs["rewound_seconds"]
    whole = costs["elapsed_seconds"] if costs["rewinds"] else costs["seconds"]
    if whole is not None:
        shares["the rest"] = max(0.0, whole - sum(shares.values()))
    return shares


def _shares(axis: Any, costs: Mapping[str, Any]) -> None:
    shares = time_shares(costs)
    total = sum(shares.values()) or 1.0
    names = list(shares)
    colours = [canvas.BLUE, canvas.SKY, canvas.ORANGE, canvas.FAINT, canvas.FAINT]
    axis.barh(names, [shares[name] for name in names], color=colours[: len(names)], height=0.62)
    for place, name in enumerate(names):
        text = f"{canvas.seconds_text(shares[name])}  ({shares[name] / total:.0%})"
        spot = (shares[name], place)
        axis.annotate(text, spot, (4, 0), textcoords="offset points", va="center", fontsize=8.5)
    axis.set(title="where the time went", xlabel="seconds")
    axis.set_xlim(0, 1.45 * max([*shares.values(), 1e-9]))
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    axis.tick_params(axis="y", length=0, labelcolor=canvas.INK)
