"""Curves over steps: held-out loss of all members, and their gradient norms."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from jaxhpo.report import canvas
from jaxhpo.report.lineage import History, Lineage, Segment, chain, joined, last_of, number
from jaxhpo.report.summary import CONTROL, POPULATION

Points = Sequence[tuple[float, float]]


def learning_curves(history: History, lineage: Lineage, summary: Mapping[str, Any]) -> Any:
    """Held-out loss over steps; an exploit reads as a curve that leaves its parent's."""
    many = len(summary["members"]) > 1
    steps = sorted({row.end for row in lineage.segments})
    if many and len(steps) >= 4:
        figure, axes = canvas.sheet(4.3, 1, 2, width_ratios=(1.35, 1))
    else:
        figure, axes = canvas.sheet(3.9)
    best = best_line(lineage, summary)
    for axis in axes:
        _losses(axis, lineage, best)
        axis.set_xlabel("step")
    if not many:
        _training_loss(axes[0], best)
    _whole(axes[0], history, lineage)
    _legend(figure, axes[0], lineage, many)
    if len(axes) > 1:
        axes[0].set_title("all steps")
        _ending(axes[1], lineage, summary, steps)
    _edge(axes[-1], history, summary)
    return figure


def best_line(lineage: Lineage, summary: Mapping[str, Any]) -> tuple[Segment, ...]:
    """The segments that led to the best member, empty if there is none."""
    best = summary["best"]
    return chain(lineage, last_of(lineage, best["trial"]).position) if best else ()


def _losses(axis: Any, lineage: Lineage, best: Sequence[Segment]) -> None:
    from matplotlib.collections import LineCollection

    groups: dict[str, list[Points]] = {}
    for row in lineage.segments:
        groups.setdefault(row.group, []).append(_stretch(lineage, row))
    for group, stretches in groups.items():
        colour, alpha = canvas.group_colour(group), 0.75 if group == CONTROL else 0.6
        style = {
            "colors": colour,
            "alpha": alpha,
            "linewidths": 1.2,
            "label": canvas.group_label(group),
        }
        axis.add_collection(LineCollection(stretches, **style, zorder=2 + (group != CONTROL)))
        alone = [points[0] for points in stretches if len(points) == 1]
        if alone:  # without data plot() takes the mark itself for a category
            axis.plot(*zip(*alone, strict=True), ".", ms=4, color=colour, alpha=alpha)
    points = [(row.end, row.loss) for row in best]
    if points:
        axis.plot(*zip(*points, strict=True), "-o", ms=3, lw=2.2, color=canvas.VERMILLION, zorder=5)
    probed = [(row.end, row.score) for row in best if row.probe]
    if probed:
        style = {"color": canvas.VERMILLION, "mfc": "white", "ms": 5, "zorder": 5}
        axis.plot(*zip(*probed, strict=True), "v", **style)


def _stretch(lineage: Lineage, row: Segment) -> Points:
    end = (row.end, row.loss)
    if row.parent is None:
        return [end]
    parent = lineage.segments[row.parent]
    return [(parent.end, parent.loss), end]


def _training_loss(axis: Any, best: Sequence[Segment]) -> None:
    steps = [step for row in best for step in row.curves.get("step", ())]
    losses = [loss for row in best for loss in row.curves.get("loss", ())]
    if steps:
        axis.plot(*canvas.finite(steps, losses), lw=1, color=canvas.SKY, label="training", zorder=1)


def _whole(axis: Any, history: History, lineage: Lineage) -> None:
    """Limits, baselines and marks of broken members in the panel that shows everything."""
    baselines = [(row["name"], number(row["loss"])) for row in history.of("baseline")]
    shown = [row.loss for row in lineage.segments]
    shown += [loss for row in lineage.segments for loss in row.curves.get("loss", ())[:1]]
    axis.set_ylim(*canvas.robust_limits(shown, [loss for _, loss in baselines]))
    axis.set_xlim(0, max(row.end for row in lineage.segments) * 1.02)
    axis.set_ylabel("held-out loss (nats per token)")
    for name, loss in baselines:
        axis.axhline(loss, ls=(0, (5, 3)), lw=1.2, color=canvas.INK, zorder=1)
        spot = {"xy": (0, loss), "xycoords": ("axes fraction", "data"), "xytext": (4, 4)}
        axis.annotate(f"{name} {loss:.3f}", **spot, textcoords="offset points", fontsize=8.5)
    _broken(axis, lineage)


def _broken(axis: Any, lineage: Lineage) -> None:
    top = axis.get_ylim()[1]
    for row in lineage.segments:
        parent = None if row.parent is None else lineage.segments[row.parent]
        if math.isfinite(row.loss) or (parent is not None and not math.isfinite(parent.loss)):
            continue
        x, y = (parent.end, min(parent.loss, top)) if parent is not None else (row.end, top)
        axis.plot(
            x, y, "X", ms=8, color=canvas.PURPLE, mec="white", mew=0.8, zorder=6, clip_on=False
        )


def _legend(figure: Any, axis: Any, lineage: Lineage, many: bool) -> None:
    from matplotlib.lines import Line2D

    lone = canvas.group_label("")
    handles = [h for h in axis.get_legend_handles_labels()[0] if many or h.get_label() != lone]
    best = "line of the best" if many else "held-out"
    handles.append(Line2D([], [], color=canvas.VERMILLION, lw=2.2, label=best))
    if any(row.probe for row in lineage.segments):
        style = {"color": canvas.VERMILLION, "mfc": "white", "marker": "v", "ls": "", "ms": 5}
        handles.append(Line2D([], [], **style, label="the same, probed"))
    if any(not math.isfinite(row.loss) for row in lineage.segments):
        style = {"color": canvas.PURPLE, "marker": "X", "ls": "", "ms": 8, "mec": "white"}
        handles.append(Line2D([], [], **style, label="became NaN"))
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles))


def _ending(axis: Any, lineage: Lineage, summary: Mapping[str, Any], steps: Sequence[int]) -> None:
    """The last steps of the members that compete: the tuned ones and the best of the fixed."""
    begin = steps[-1] - (steps[-1] - steps[0]) * 0.4
    rival = next((row["trial"] for row in summary["members"] if row["group"] == CONTROL), None)
    late = [row for row in lineage.segments if row.end >= begin]
    shown = [row.loss for row in late if row.group != CONTROL or row.trial == rival]
    shown += [row.score for row in best_line(lineage, summary) if row.probe and row.end >= begin]
    axis.set_title("the last part, enlarged")
    axis.set_xlim(begin, steps[-1])
    axis.set_ylim(*canvas.robust_limits(shown))


def _edge(axis: Any, history: History, summary: Mapping[str, Any]) -> None:
    labels = []
    best = summary["best"]
    if best and math.isfinite(best["loss"]):
        labels.append(
            (best["loss"], f"best: trial {best['trial']}\n{best['loss']:.3f}", canvas.VERMILLION)
        )
    fixed = summary["groups"].get(CONTROL)
    if fixed and POPULATION in summary["groups"]:
        grey = canvas.MUTED
        labels += [
            (fixed[key], f"{key} fixed\n{fixed[key]:.3f}", grey) for key in ("best", "median")
        ]
    top = axis.get_ylim()[1]
    labels = [
        (y, f"↑ {text}" if y > top else text, colour)
        for y, text, colour in labels
        if math.isfinite(y)
    ]
    canvas.edge_labels(axis, labels, gap=0.12)


def gradient_norms(history: History, lineage: Lineage, summary: Mapping[str, Any]) -> Any:
    """Norm of the gradient before clipping, over steps, on a log scale."""
    if not any(row.curves.get("grad_norm") for row in lineage.segments):
        return None
    figure, (axis,) = canvas.sheet(3.5)
    many = len(summary["members"]) > 1
    groups: dict[str, list[Segment]] = {}
    for row in sorted(lineage.segments, key=lambda row: row.group != CONTROL):
        groups.setdefault(row.group, []).append(row)
    for group, rows in groups.items():
        norms = [_drawable(*joined(lineage, row, "grad_norm")) for row in rows]
        looks = [(canvas.group_colour(group), 0.8 if many else 1.2)] * len(rows)
        style = {"alpha": 0.4 if many else 1.0, "label": canvas.group_label(group)}
        canvas.lines(axis, norms, looks, **style)
    best = best_line(lineage, summary)
    if best and many:
        steps = [step for row in best for step in row.curves.get("step", ())]
        norms = [norm for row in best for norm in row.curves.get("grad_norm", ())]
        axis.plot(
            *_drawable(steps, norms),
            color=canvas.VERMILLION,
            lw=1.9,
            label="line of the best",
            zorder=4,
        )
    _clip(axis, history, best)
    canvas.log_axis(axis.yaxis)
    axis.set(xlabel="step", ylabel="gradient norm")
    axis.set_xlim(0, max(row.end for row in lineage.segments) * 1.02)
    figure.legend(loc="outside upper left", ncols=4)
    return figure


def _drawable(steps: Sequence[float], norms: Sequence[float]) -> tuple[list[float], list[float]]:
    """What a log axis can show of a curve."""
    return canvas.finite(steps, [norm if norm > 0 else math.nan for norm in norms])


def _clip(axis: Any, history: History, best: Sequence[Segment]) -> None:
    """The best line's clipping threshold, where there is one."""
    config = (history.start or {}).get("config") or {}
    given = (config.get("optimizer") or {}).get("clip_norm")
    pairs = []
    for row in best:
        limit = row.point.get("optimizer.clip_norm", given)
        if isinstance(limit, int | float) and math.isfinite(limit) and limit > 0:
            pairs += [(row.begin, limit), (row.end, limit)]
    if pairs:
        axis.plot(
            *zip(*pairs, strict=True),
            "--",
            lw=1.2,
            color=canvas.INK,
            label="its clipping threshold",
        )
