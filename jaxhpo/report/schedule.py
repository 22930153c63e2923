"""The schedule that the winner's line followed: its learning rate and every searched value."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxhpo.report import canvas
from jaxhpo.report.curves import best_line
from jaxhpo.report.dimensions import Dimension, dimensions
from jaxhpo.report.lineage import History, Lineage, Segment

PEAK = "schedule.peak_lr"


def discovered_schedule(history: History, lineage: Lineage, summary: Mapping[str, Any]) -> Any:
    """Learning rate on top, a small panel for each other hyperparameter; dotted lines are forks."""
    line = best_line(lineage, summary)
    dims = dimensions(history, lineage)
    others = [dim for dim in dims if dim.name != PEAK]
    has_rates = any(row.curves.get("lr") for row in line)
    if not line or not (dims or has_rates):
        return None
    figure, axes = _layout(len(others))
    peak = next((dim for dim in dims if dim.name == PEAK), None)
    _rates(axes[0], line, peak)
    for axis, dim in zip(axes[1:], others, strict=False):
        axis.set_title(dim.name)
        _steps(axis, line, dim, canvas.GREEN, 2.0)
        values = {dim.at(row.point) for row in line} - {None}
        if len(values) == 1 and not dim.choices:
            # a constant needs no scale, only its value
            axis.set_yticks(list(values), [canvas.short(value) for value in values])
        else:
            dim.dress(axis.yaxis)
    for axis in axes[: 1 + len(others)]:
        _forks(axis, line)
        axis.set_xlim(line[0].begin, line[-1].end)
        axis.set_xlabel("step")
    return figure


def _layout(small: int) -> tuple[Any, list[Any]]:
    """One wide panel above rows of three."""
    from matplotlib.figure import Figure

    columns = min(3, small) or 1
    rows = -(-small // columns)
    height = 3.0 + 1.95 * rows
    figure = Figure(figsize=(canvas.WIDTH, height), layout="constrained")
    grid = figure.add_gridspec(1 + rows, columns, height_ratios=[1.4] + [1.0] * rows)
    axes = [figure.add_subplot(grid[0, :])]
    axes += [figure.add_subplot(grid[1 + i // columns, i % columns]) for i in range(small)]
    return figure, axes


def _rates(axis: Any, line: Sequence[Segment], peak: Dimension | None) -> None:
    axis.set_title("learning rate")
    steps = [step for row in line for step in row.curves.get("step", ())]
    rates = [rate for row in line for rate in row.curves.get("lr", ())]
    if peak is not None:
        _steps(axis, line, peak, canvas.MUTED, 1.3, ls="--", label="its peak")
    if steps:
        axis.plot(*canvas.finite(steps, rates), color=canvas.VERMILLION, lw=2.2, label="in use")
    positive = [rate for rate in rates if rate > 0]
    if positive and max(positive) > 30 * min(positive):
        canvas.log_axis(axis.yaxis)
    axis.legend(loc="best", ncols=2)


def _steps(
    axis: Any, line: Sequence[Segment], dim: Dimension, colour: str, width: float, **style: Any
) -> None:
    pairs = []
    for row in line:
        value = dim.at(row.point)
        if value is not None:
            pairs += [(row.begin, value), (row.end, value)]
    if pairs:
        axis.plot(*zip(*pairs, strict=True), color=colour, lw=width, **style)


def _forks(axis: Any, line: Sequence[Segment]) -> None:
    for row in line:
        if row.is_exploit:
            axis.axvline(row.begin, ls=":", lw=1, color=canvas.MUTED, zorder=1)
