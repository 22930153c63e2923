"""The searched hyperparameters of a run: names, scales, values over time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxhpo.report import canvas
from jaxhpo.report.lineage import History, Lineage, Segment, joined
from jaxhpo.report.summary import CONTROL


@dataclass(frozen=True)
class Dimension:
    """One dotted name of the space. `choices` is empty for a numeric dimension."""

    name: str
    is_log: bool
    choices: tuple[str, ...]

    def at(self, point: Mapping[str, Any]) -> float | None:
        """A point's place on the axis: its value, or the number of its choice."""
        value = point.get(self.name)
        if value is None:
            return None
        return float(self.choices.index(str(value))) if self.choices else float(value)

    def dress(self, axis: Any) -> None:
        """Gives an axis this dimension's scale and tick labels; call it when the data are drawn."""
        if self.choices:
            axis.set_ticks(range(len(self.choices)), self.choices)
        elif self.is_log:
            canvas.log_axis(axis)


def dimensions(history: History, lineage: Lineage) -> tuple[Dimension, ...]:
    """The dimensions that points really carry, in the space's order, then the others by name."""
    space = (history.start or {}).get("space") or {}
    seen: dict[str, list[Any]] = {}
    for segment in lineage.segments:
        for name, value in segment.point.items():
            seen.setdefault(name, []).append(value)
    names = [name for name in space if name in seen] + sorted(set(seen) - set(space))
    return tuple(_dimension(name, str(space.get(name, "")), seen[name]) for name in names)


def _dimension(name: str, distribution: str, values: Sequence[Any]) -> Dimension:
    numeric = all(isinstance(x, int | float) and not isinstance(x, bool) for x in values)
    choices = () if numeric else tuple(sorted({str(x) for x in values}))
    is_log = distribution.strip().startswith("log") and numeric and all(x > 0 for x in values)
    return Dimension(name, is_log, choices)


def hyperparameters(history: History, lineage: Lineage, summary: Mapping[str, Any]) -> Any:
    """Every hyperparameter over steps, coloured by the final rank that its line reached."""
    rows = tuned(lineage)
    dims = dimensions(history, lineage)
    if not dims or not rows:
        return None
    ranks = max((lineage.ranks[row.position] or 1 for row in rows), default=1)
    panels = 1 + len(dims)
    columns = 2 if panels > 1 else 1
    lines = -(-panels // columns)
    figure, axes = canvas.sheet(0.3 + 2.35 * lines, lines, columns, sharex=True)
    ordered = sorted(rows, key=lambda row: -(lineage.ranks[row.position] or 10_000))
    _used_rates(axes[0], lineage, ordered, ranks)
    for axis, dim in zip(axes[1:], dims, strict=False):
        _values(axis, dim, lineage, ordered, ranks)
    for axis in axes[panels:]:
        axis.set_axis_off()
    for axis in axes[:panels]:
        axis.set_xlabel("step")
        axis.tick_params(labelbottom=True)
    if ranks > 1:
        canvas.rank_bar(figure, axes, ranks, "final rank of the line (grey: died out)")
    return figure


def tuned(lineage: Lineage) -> tuple[Segment, ...]:
    """All segments but those of the control group, unless there is nothing else."""
    rows = tuple(row for row in lineage.segments if row.group != CONTROL)
    return rows or lineage.segments


def _looks(lineage: Lineage, rows: Sequence[Segment], ranks: int) -> list[tuple[Any, float]]:
    """Colour and width of every segment: dark and wide for the first, grey for what died out."""
    colours, norm = canvas.rank_map(ranks)
    looks = []
    for row in rows:
        rank = lineage.ranks[row.position]
        colour = canvas.FAINT if rank is None else colours(norm(rank))
        looks.append((colour, 1.0 if rank is None else 2.2 if rank == 1 else 1.5))
    return looks


def _used_rates(axis: Any, lineage: Lineage, rows: Sequence[Segment], ranks: int) -> None:
    axis.set_title("learning rate in use")
    curves = [canvas.finite(*joined(lineage, row, "lr")) for row in rows]
    canvas.lines(axis, curves, _looks(lineage, rows, ranks))
    positive = [rate for _, rates in curves for rate in rates if rate > 0]
    if positive and max(positive) > 8 * min(positive):
        canvas.log_axis(axis.yaxis)
    if not positive:
        spot = {"transform": axis.transAxes, "ha": "center", "color": canvas.MUTED}
        axis.text(0.5, 0.5, "not recorded", **spot)


def _values(
    axis: Any, dim: Dimension, lineage: Lineage, rows: Sequence[Segment], ranks: int
) -> None:
    axis.set_title(dim.name)
    flat, flat_looks, steep, steep_looks = [], [], [], []
    for row, look in zip(rows, _looks(lineage, rows, ranks), strict=True):
        value = dim.at(row.point)
        if value is None:
            continue
        flat.append(([row.begin, row.end], [value, value]))
        flat_looks.append(look)
        parent = None if row.parent is None else dim.at(lineage.segments[row.parent].point)
        if row.is_exploit and parent is not None:
            steep.append(([row.begin, row.begin], [parent, value]))
            steep_looks.append((look[0], 0.9))
    canvas.lines(axis, steep, steep_looks)
    canvas.lines(axis, flat, flat_looks)
    if steep:
        forks = [(x[0], y[1]) for x, y in steep]
        rims = {"edgecolors": [colour for colour, _ in steep_looks], "linewidths": 1.1}
        axis.scatter(*zip(*forks, strict=True), s=16, facecolors="white", zorder=4, **rims)
    dim.dress(axis.yaxis)


def final_losses(history: History, lineage: Lineage, summary: Mapping[str, Any]) -> Any:
    """Final held-out loss of every member against each hyperparameter it ended with."""
    dims = dimensions(history, lineage)
    members = [row for row in summary["members"] if row["point"]]
    sound = [row for row in members if canvas.isfinite(row["loss"])]
    if not dims or len(sound) < 2:
        return None
    columns = min(3, len(dims))
    lines = -(-len(dims) // columns)
    figure, axes = canvas.sheet(0.7 + 2.3 * lines, lines, columns, sharey=True)
    low, high = canvas.robust_limits([row["loss"] for row in sound])
    for axis, dim in zip(axes, dims, strict=False):
        axis.set_title(dim.name)
        axis.set_ylim(low, high)
        for row in members:
            _dot(axis, dim, row, summary["best"], high)
        dim.dress(axis.xaxis)
    for axis in axes[len(dims) :]:
        axis.set_axis_off()
    for axis in axes[::columns]:
        axis.set_ylabel("held-out loss (nats)")
    _legend(figure, members, summary["best"], high)
    return figure


def _dot(axis: Any, dim: Dimension, row: Mapping[str, Any], best: Any, high: float) -> None:
    x = dim.at(row["point"])
    if x is None:
        return
    colour = canvas.group_colour(row["group"])
    beyond = not canvas.isfinite(row["loss"]) or row["loss"] > high
    if beyond:
        axis.plot(x, high, "x", ms=7, mew=1.8, color=colour, clip_on=False, zorder=5)
        return
    leads = best is not None and row["trial"] == best["trial"]
    marker = "D" if leads else "o" if row["group"] != CONTROL else "s"
    colour = canvas.VERMILLION if leads else colour
    size = 8 if leads else 6.5
    axis.plot(x, row["loss"], marker, ms=size, color=colour, mec="white", mew=0.7, zorder=4 + leads)


def _legend(figure: Any, members: Sequence[Mapping[str, Any]], best: Any, high: float) -> None:
    from matplotlib.lines import Line2D

    def key(marker: str, colour: str, label: str) -> Any:
        return Line2D([], [], marker=marker, ls="", ms=6.5, color=colour, mec=colour, label=label)

    groups = dict.fromkeys(row["group"] for row in members)
    keys = [
        key("s" if group == CONTROL else "o", canvas.group_colour(group), canvas.group_label(group))
        for group in groups
    ]
    if best is not None:
        keys.append(key("D", canvas.VERMILLION, f"best: trial {best['trial']}"))
    if any(not canvas.isfinite(row["loss"]) or row["loss"] > high for row in members):
        keys.append(key("x", canvas.MUTED, "off the scale or NaN"))
    figure.legend(handles=keys, loc="outside upper left", ncols=4)
