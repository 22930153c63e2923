"""Figures of a search: all learning curves with their rungs, and what early losses foretold."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from jaxhpo.report import canvas
from jaxhpo.report.lineage import History, Lineage, number
from jaxhpo.report.trials import Curve, rungs, spearman, trial_curves

FEW = 3
"""Fewer common trials than this show no correlation."""


def search_curves(history: History, lineage: Lineage, summary: Mapping[str, Any]) -> Any:
    """Held-out loss of every trial over its steps, and the best so far over all steps made."""
    curves = trial_curves(lineage)
    figure, axes = canvas.sheet(4.6, 1, 2, width_ratios=(1.35, 1))
    _curves(axes[0], curves, lineage, summary)
    _limits(axes[0], history, curves)
    _rungs(axes[0], curves)
    _best_so_far(axes[1], lineage)
    axes[1].set_ylim(*axes[0].get_ylim())
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=4)
    return figure


def _curves(
    axis: Any, curves: Sequence[Curve], lineage: Lineage, summary: Mapping[str, Any]
) -> None:
    best = summary["best"]
    last = max(curve.steps[-1] for curve in curves)
    whole = [curve for curve in curves if curve.steps[-1] == last]
    stopped = [curve for curve in curves if curve.steps[-1] < last]
    for rows, colour, label in (
        (stopped, canvas.FAINT, "stopped or paused"),
        (whole, canvas.BLUE, "trained to the end"),
    ):
        lines = [canvas.finite(curve.steps, curve.losses) for curve in rows]
        looks = [(colour, 1.1)] * len(rows)
        if any(x for x, _ in lines):
            canvas.lines(axis, lines, looks, alpha=0.75, label=label)
        ends = [(x[-1], y[-1]) for x, y in lines if x]
        if ends:
            axis.plot(*zip(*ends, strict=True), "o", ms=2.8, color=colour, zorder=3)
    leader = next((c for c in curves if best and c.trial == best["trial"]), None)
    if leader is not None:
        x, y = canvas.finite(leader.steps, leader.losses)
        label = f"best: trial {leader.trial}"
        axis.plot(x, y, "-o", ms=3.5, lw=2.2, color=canvas.VERMILLION, label=label, zorder=5)
    axis.set(xlabel="step", ylabel="held-out loss (nats)", title="all trials")


def _limits(axis: Any, history: History, curves: Sequence[Curve]) -> None:
    baselines = [(row["name"], number(row["loss"])) for row in history.of("baseline")]
    shown = [loss for curve in curves for loss in curve.losses]
    levels = [loss for _, loss in baselines]
    axis.set_ylim(*canvas.robust_limits([*shown, *levels], levels))
    axis.set_xlim(0, 1.03 * max(curve.steps[-1] for curve in curves))
    for name, loss in baselines:
        axis.axhline(loss, ls=(0, (5, 3)), lw=1.2, color=canvas.INK, zorder=1)
        spot = {"xy": (1, loss), "xycoords": ("axes fraction", "data"), "xytext": (-4, 4)}
        text = f"{name} {loss:.3f}"
        axis.annotate(text, **spot, textcoords="offset points", fontsize=8.5, ha="right")


def _rungs(axis: Any, curves: Sequence[Curve]) -> None:
    """A line at every step where trials were let go, with how many of how many went on."""
    found = rungs(curves)
    if not found or len(found) > 12:
        return
    span, drawn = axis.get_xlim()[1], -math.inf
    for step, came, went_on in found:
        axis.axvline(step, ls=":", lw=1.0, color=canvas.MUTED, zorder=1)
        if step - drawn > 0.09 * span:
            axis.annotate(
                f"{went_on}/{came}",
                xy=(step, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(2, -9),
                textcoords="offset points",
                fontsize=7.5,
                color=canvas.MUTED,
            )
            drawn = step
    axis.plot([], [], ls=":", color=canvas.MUTED, label="rung (went on / came)")


def _best_so_far(axis: Any, lineage: Lineage) -> None:
    """The lowest held-out loss over the member-steps that it cost, probes included."""
    made, best, steps, losses = 0, math.inf, [], []
    by_plan: dict[int, list[Any]] = {}
    for row in lineage.segments:
        by_plan.setdefault(row.plan, []).append(row)
    for rows in by_plan.values():
        made += sum(row.end - row.begin + row.probe for row in rows)
        best = min([best, *(row.loss for row in rows if math.isfinite(row.loss))])
        if math.isfinite(best):
            steps.append(made)
            losses.append(best)
    axis.step(steps, losses, where="post", lw=2, color=canvas.VERMILLION)
    axis.set(xlabel="member-steps, probes included", title="best so far")
    axis.set_xlim(left=0)


def rank_correlation(history: History, lineage: Lineage, summary: Mapping[str, Any]) -> Any:
    """Early scores against final ones, one panel a rung, with Spearman's correlation."""
    curves = trial_curves(lineage)
    if not curves:
        return None
    last = max(curve.steps[-1] for curve in curves)
    panels = [
        (step, pairs) for step in _early(curves, last) if (pairs := _pairs(curves, step, last))
    ]
    panels = panels[:3]
    if not panels:
        return None
    figure, axes = canvas.sheet(3.4, 1, len(panels))
    continued = ((history.start or {}).get("config") or {}).get("search", {}).get("continued", 0)
    for axis, (step, pairs) in zip(axes, panels, strict=True):
        early, final = zip(*pairs, strict=True)
        rho = spearman(early, final)
        everybody = len(pairs) == sum(step in curve.steps for curve in curves)
        axis.plot(early, final, "o", ms=6, color=canvas.BLUE, mec="white", mew=0.7)
        axis.set(xlabel=f"score at step {step}", title=f"ρ = {rho:.2f} over {len(pairs)} trials")
        note = "all that came so far" if everybody else "survivors alone: biased"
        if continued and not everybody:
            note = f"survivors and {continued} of the others"
        axis.text(
            0.98, 0.03, note, transform=axis.transAxes, ha="right", fontsize=8, color=canvas.MUTED
        )
    axes[0].set_ylabel(f"score at step {last}")
    return figure


def _early(curves: Sequence[Curve], last: int) -> list[int]:
    """Steps before the last at which trials can be compared: rungs, or else a fifth of the way."""
    found = [step for step, _, _ in rungs(curves)]
    if found:
        return found
    steps = sorted({step for curve in curves for step in curve.steps if step < last})
    near = [step for step in steps if step >= last / 5] or steps
    return near[:1]


def _pairs(curves: Sequence[Curve], step: int, last: int) -> list[tuple[float, float]]:
    found = [(curve.at(step), curve.at(last)) for curve in curves]
    sound = [(a, b) for a, b in found if canvas.isfinite(a) and canvas.isfinite(b)]
    return (
        [(a, b) for a, b in sound if a is not None and b is not None] if len(sound) >= FEW else []
    )
