"""The figure of a family: losses as curves that branch, and the tree of who descends from whom."""

import math
from typing import Any

from jaxhpo.report import canvas
from jaxhpo.report.family import Family, Key, Relative, best, in_order

COLOURS = (canvas.BLUE, canvas.GREEN, canvas.ORANGE, canvas.PURPLE, canvas.SKY)
FEW = 24
"""Up to so many trials each is named."""


def draw_family(relatives: Family) -> bytes:
    """A PNG file: held-out loss and lineage of all trials over the steps of their models."""
    import matplotlib

    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **canvas.RC}):
        return canvas.png(_figure(relatives))


def _figure(relatives: Family) -> Any:
    rows = in_order(relatives, latest_first=True)
    pitch = 0.3 if len(rows) <= FEW else 0.13
    tree = max(1.0, pitch * len(rows) + 0.4)
    figure, (above, below) = canvas.sheet(3.4 + tree, 2, 1, height_ratios=(3.0, tree), sharex=True)
    line = ancestry(relatives, best(relatives).key)
    colours = colours_of(relatives)
    for _, each in rows:
        _curve(above, each, _look(each, line, colours))
    _lanes(below, rows, line, colours)
    _dress(above, below, relatives)
    _legend(figure, colours, line)
    return figure


def ancestry(relatives: Family, key: Key) -> frozenset[Key]:
    """A trial and all that it descends from."""
    found = set()
    at: Key | None = key
    while at is not None:
        found.add(at)
        at = relatives[at].parent
    return frozenset(found)


def colours_of(relatives: Family) -> dict[str, str]:
    """A colour for each run; the first has the plainest."""
    runs = list(dict.fromkeys(each.run for each in relatives.values()))
    return {run: COLOURS[number % len(COLOURS)] for number, run in enumerate(runs)}


def _look(each: Relative, line: frozenset[Key], colours: dict[str, str]) -> dict[str, Any]:
    if each.key in line:
        return {"color": canvas.VERMILLION, "lw": 2.4, "zorder": 5}
    return {"color": colours[each.run], "lw": 1.3, "zorder": 3}


def _curve(axis: Any, each: Relative, look: dict[str, Any]) -> None:
    steps, losses = canvas.finite(*zip(*each.losses, strict=True)) if each.losses else ((), ())
    if len(steps) == 1:
        axis.plot(steps, losses, ".", ms=4, color=look["color"], zorder=look["zorder"])
    else:
        axis.plot(steps, losses, "-o", ms=2.2, **look)


def _lanes(
    axis: Any, rows: list[tuple[int, Relative]], line: frozenset[Key], colours: dict[str, str]
) -> None:
    heights = {each.key: height for height, (_, each) in enumerate(rows)}
    for _, each in rows:
        look, height = _look(each, line, colours), heights[each.key]
        if each.parent is not None:
            axis.plot([each.begin] * 2, [heights[each.parent], height], **{**look, "lw": 0.9})
        axis.plot([each.begin, max(each.end, each.begin)], [height] * 2, **look)
        if not math.isfinite(each.loss):
            axis.plot(each.end, height, "X", ms=7, color=canvas.PURPLE, mec="white", zorder=6)
        if len(rows) <= FEW:
            last = each.key in line and line.isdisjoint(
                row.key for _, row in rows if row.parent == each.key
            )
            axis.annotate(
                f"{each.run} · {each.trial}   {canvas.loss_text(each.loss)}",
                (each.end, height),
                (6, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
                color=canvas.VERMILLION if last else canvas.INK,
                annotation_clip=False,
            )
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set_yticks([])
    axis.grid(axis="y", visible=False)
    axis.spines["left"].set_visible(False)


def _dress(above: Any, below: Any, relatives: Family) -> None:
    losses = [loss for each in relatives.values() for _, loss in each.losses]
    above.set_ylim(*canvas.robust_limits(losses))
    above.set_ylabel("held-out loss (nats per token)")
    below.set_xlabel("step of the model, its ancestors' included")
    last = max(each.end for each in relatives.values())
    below.set_xlim(0, last * (1.25 if len(relatives) <= FEW else 1.02))


def _legend(figure: Any, colours: dict[str, str], line: frozenset[Key]) -> None:
    from matplotlib.lines import Line2D

    keys = [Line2D([], [], color=canvas.VERMILLION, lw=2.4, label="line of the best")]
    keys += [Line2D([], [], color=c, lw=1.6, label=run) for run, c in list(colours.items())[:7]]
    figure.legend(handles=keys, loc="outside upper left", ncols=4)
