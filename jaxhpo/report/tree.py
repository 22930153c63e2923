"""The lineage tree: one lane for each place of the population, an arrow for each copied winner."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from jaxhpo.report import canvas
from jaxhpo.report.curves import best_line
from jaxhpo.report.dimensions import tuned
from jaxhpo.report.lineage import Lineage, Segment

BEND = 0.42
"""share of a segment that an arrow takes to change lanes"""


def lineage_tree(history: Any, lineage: Lineage, summary: Mapping[str, Any]) -> Any:
    """Lanes over steps, best final member on top; the best member's ancestry stands out."""
    rows = tuned(lineage)
    lanes = _order(lineage, rows)
    if len(lanes) < 2:
        return None
    pitch = 0.36 if len(lanes) <= 20 else 0.22
    figure, (axis,) = canvas.sheet(1.1 + pitch * len(lanes))
    line = {row.position for row in best_line(lineage, summary)}
    for row in rows:
        _draw(axis, lineage, row, lanes, line)
    if len(lanes) <= 20:
        _name_trials(axis, rows, lanes, line)
    _final_labels(axis, lineage, rows, lanes, line)
    axis.set_ylim(len(lanes) - 0.4, -0.7)
    axis.set_xlim(min(row.begin for row in rows), max(row.end for row in rows))
    axis.set_yticks([])
    axis.grid(axis="y", visible=False)
    axis.spines["left"].set_visible(False)
    axis.set_xlabel("step")
    _legend(figure, line)
    return figure


def _order(lineage: Lineage, rows: Sequence[Segment]) -> dict[int, int]:
    """The height of each lane: by the rank of its last trial."""
    last = {row.lane: row for row in rows}
    finals = set(lineage.finals)

    def key(lane: int) -> tuple[bool, int, int]:
        row = last[lane]
        return row.position not in finals, lineage.ranks[row.position] or 10_000, lane

    return {lane: height for height, lane in enumerate(sorted(last, key=key))}


def _look(lineage: Lineage, row: Segment, line: set[int]) -> dict[str, Any]:
    if row.position in line:
        return {"color": canvas.VERMILLION, "lw": 3.0, "zorder": 5}
    if lineage.ranks[row.position] is None:
        return {"color": canvas.FAINT, "lw": 1.6, "zorder": 2}
    return {"color": canvas.BLUE, "lw": 1.8, "zorder": 3}


def _draw(
    axis: Any, lineage: Lineage, row: Segment, lanes: Mapping[int, int], line: set[int]
) -> None:
    look = _look(lineage, row, line)
    height = lanes[row.lane]
    begin = row.begin
    parent = None if row.parent is None else lineage.segments[row.parent]
    if row.is_exploit and parent is not None:
        begin = row.begin + BEND * (row.end - row.begin)
        _arrow(axis, (row.begin, lanes[parent.lane]), (begin, height), look)
    axis.plot([begin, row.end], [height, height], **look)
    if not math.isfinite(row.loss):
        axis.plot(row.end, height, "X", ms=8, color=canvas.PURPLE, mec="white", mew=0.8, zorder=6)


def _arrow(axis: Any, start: tuple[float, float], end: tuple[float, float], look: dict) -> None:
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    middle = (start[0] + end[0]) / 2
    path = Path([start, (middle, start[1]), (middle, end[1]), end], [1, 4, 4, 4])
    width = {**look, "lw": max(0.9, 0.55 * look["lw"])}
    arrow = {"arrowstyle": "-|>,head_length=4,head_width=2.2", "shrinkA": 0, "shrinkB": 0}
    axis.add_patch(FancyArrowPatch(path=path, **arrow, **width))


def _name_trials(
    axis: Any, rows: Sequence[Segment], lanes: Mapping[int, int], line: set[int]
) -> None:
    for row in rows:
        newborn = row.parent is None
        if not (newborn or row.is_exploit):
            continue
        shift = 0 if newborn else BEND
        spot = row.begin + shift * (row.end - row.begin)
        colour = canvas.VERMILLION if row.position in line else canvas.MUTED
        axis.annotate(
            str(row.trial),
            (spot, lanes[row.lane]),
            (2, 3.5),
            textcoords="offset points",
            fontsize=7.5,
            color=colour,
            zorder=7,
        )


def _final_labels(
    axis: Any, lineage: Lineage, rows: Sequence[Segment], lanes: Mapping[int, int], line: set[int]
) -> None:
    finals = set(lineage.finals)
    for row in rows:
        if row.position not in finals:
            continue
        best = row.position in line
        axis.annotate(
            f"{lineage.ranks[row.position]}.  trial {row.trial}   {canvas.loss_text(row.loss)}",
            (row.end, lanes[row.lane]),
            (8, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5 if len(lanes) <= 20 else 7.5,
            fontweight="bold" if best else "normal",
            color=canvas.VERMILLION if best else canvas.INK,
            annotation_clip=False,
        )


def _legend(figure: Any, line: set[int]) -> None:
    from matplotlib.lines import Line2D

    keys = [
        Line2D([], [], color=canvas.VERMILLION, lw=3, label="ancestry of the best"),
        Line2D([], [], color=canvas.BLUE, lw=1.8, label="other lines that survive"),
        Line2D([], [], color=canvas.FAINT, lw=1.6, label="lines that died out"),
    ]
    figure.legend(handles=keys[0 if line else 1 :], loc="outside upper left", ncols=3)
