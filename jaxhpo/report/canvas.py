"""The look of every figure: palette, type, axes and labels that keep out of each other's way."""

import io
import math
from collections.abc import Iterable, Sequence
from typing import Any

# Okabe and Ito's palette: distinct under every common kind of colour blindness.
BLUE, VERMILLION, GREEN, ORANGE, SKY, PURPLE = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#E69F00",
    "#56B4E9",
    "#AA5A93",
)
INK, MUTED, FAINT, GRID = "#1f2933", "#5f6b7a", "#c3c9d1", "#e6e9ed"
DPI = 150
WIDTH = 9.0

RC = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.labelsize": 9.5,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#9aa5b1",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.dpi": DPI,  # also while laying out: hinted text is wider at other resolutions
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "lines.solid_capstyle": "round",
}


def sheet(height: float, rows: int = 1, columns: int = 1, **grid: Any) -> tuple[Any, list[Any]]:
    """A figure of the page's width and its axes in reading order."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **grid)
    return figure, list(axes.flat)


def png(figure: Any) -> bytes:
    """A figure as a PNG file whose bytes depend on nothing but the drawing."""
    engine = figure.get_layout_engine()
    if engine is not None:
        # laid out once: left on, the engine would do it again for every pass of drawing
        engine.execute(figure)
        figure.set_layout_engine("none")
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=DPI, format="png", metadata={"Software": None})
    return buffer.getvalue()


def rank_map(ranks: int) -> tuple[Any, Any]:
    """Colour map and normalisation of final ranks 1 to `ranks`: dark is best, light is last."""
    from matplotlib import colormaps
    from matplotlib.colors import BoundaryNorm, ListedColormap

    ranks = max(ranks, 1)
    source = colormaps["viridis"]
    shades = [source(0.9 * i / max(ranks - 1, 1)) for i in range(ranks)]
    return ListedColormap(shades), BoundaryNorm([i + 0.5 for i in range(ranks + 1)], ranks)


def rank_bar(figure: Any, axes: Sequence[Any], ranks: int, label: str) -> None:
    """A colour bar of final ranks with a tick at a readable number of them."""
    from matplotlib.cm import ScalarMappable

    colours, norm = rank_map(ranks)
    every = max(1, math.ceil(ranks / 12))
    ticks = [1, *range(1 + every, ranks + 1, every)] if ranks > 1 else [1]
    bar = figure.colorbar(
        ScalarMappable(norm, colours), ax=list(axes), ticks=ticks, pad=0.015, aspect=24, shrink=0.6
    )
    bar.set_label(label)
    bar.ax.invert_yaxis()
    bar.ax.tick_params(length=0)
    bar.ax.minorticks_off()
    bar.outline.set_visible(False)


def lines(
    axes: Any,
    curves: Sequence[tuple[Sequence[float], Sequence[float]]],
    looks: Sequence[tuple[Any, float]],
    **style: Any,
) -> None:
    """Many curves (x, y) with their looks (colour, width), the last on top, as one fast artist."""
    from matplotlib.collections import LineCollection

    drawn = [(c, look) for c, look in zip(curves, looks, strict=True) if len(c[0])]
    points = [list(zip(*curve, strict=True)) for curve, _ in drawn]
    colours, widths = [look[0] for _, look in drawn], [look[1] for _, look in drawn]
    style = {"capstyle": "round", "zorder": 3, **style}
    axes.add_collection(
        LineCollection(points, colors=colours, linewidths=widths, **style), autolim=False
    )
    sound = [point for curve in points for point in curve if math.isfinite(point[1])]
    if sound:
        axes.update_datalim(sound)
    axes.autoscale_view()


def finite(steps: Iterable[float], values: Iterable[float]) -> tuple[list[float], list[float]]:
    """The points of a curve up to and without its non-finite values; gaps are kept as NaN."""
    pairs = [(s, v if math.isfinite(v) else math.nan) for s, v in zip(steps, values, strict=False)]
    while pairs and math.isnan(pairs[-1][1]):
        pairs.pop()
    return [s for s, _ in pairs], [v for _, v in pairs]


def edge_labels(axes: Any, labels: Sequence[tuple[float, str, str]], gap: float = 0.062) -> None:
    """Texts at the right edge, beside their values (y, text, colour), apart where they would touch.

    `gap` is the least distance of two labels as a share of the axis. Call it when limits are set.
    """
    low, high = axes.get_ylim()
    spots = sorted(
        ((min(max(y, low), high) - low) / (high - low), text, c) for y, text, c in labels
    )
    places = [spot for spot, _, _ in spots]
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + gap)
    if places and places[-1] > 1.0:
        places[-1] = 1.0
        for i in range(len(places) - 2, -1, -1):
            places[i] = min(places[i], places[i + 1] - gap)
    for (spot, text, colour), place in zip(spots, places, strict=True):
        axes.annotate(
            text,
            xy=(1.0, spot),
            xytext=(1.04, place),
            xycoords="axes fraction",
            textcoords="axes fraction",
            color=colour,
            fontsize=8.5,
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.7, "shrinkA": 1, "shrinkB": 0},
        )


def log_axis(axis: Any) -> None:
    """A log scale whose labels stay sparse over decades and present within one."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    name = axis.axis_name
    getattr(axis.axes, f"set_{name}scale")("log")
    low, high = sorted(axis.get_view_interval())
    decades = math.log10(high / low) if low > 0 else 9
    if decades < 0.5:  # within one decade a log locator has nothing to offer but clutter
        axis.set_major_locator(MaxNLocator(5))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
        return
    subs = (1.0, 2.0, 5.0) if decades < 1.6 else (1.0, 3.0) if decades < 2.6 else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs, numticks=9))
    axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axis.set_minor_formatter(FuncFormatter(lambda value, _: ""))


def short(value: Any) -> str:
    """A number as a person writes it: 0.003, 3e-4, 12,000; everything else as it is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    size = abs(value)
    if isinstance(value, int) or (size >= 1 and value == int(value) and size < 1e9):
        return f"{int(value):,}"
    if size != 0 and (size < 1e-3 or size >= 1e6):
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return f"{value:.3g}"


def isfinite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def robust_limits(values: Sequence[float], also: Sequence[float] = ()) -> tuple[float, float]:
    """Limits that show the bulk of the finite values and `also`, whatever has diverged."""
    ordered = sorted(value for value in values if math.isfinite(value))
    if not ordered:
        return 0.0, 1.0
    low = min([ordered[0], *also])
    bulk = ordered[min(len(ordered) - 1, int(0.85 * len(ordered)))]
    high = max([min(ordered[-1], low + 1.5 * (bulk - low)), *also])
    pad = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return low - pad, high + pad


def group_colour(group: str) -> str:
    """Blue for what is tuned, slate for what is held fixed beside it, ink for what is inherited."""
    return {"fixed": "#8893a0", "trunk": INK}.get(group, BLUE)


def group_label(group: str) -> str:
    return {"pbt": "PBT", "fixed": "same start, held fixed", "": "member"}.get(group, group)


def loss_text(loss: float) -> str:
    return f"{loss:.3f}" if math.isfinite(loss) else short(float(loss))


def seconds_text(seconds: float) -> str:
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 120 else f"{seconds:.1f} s"
