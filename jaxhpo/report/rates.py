"""Learning rates drawn: as a figure over steps and tokens, and as text for a terminal."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxhpo.report import canvas

COLOURS = (
    canvas.BLUE,
    canvas.VERMILLION,
    canvas.GREEN,
    canvas.ORANGE,
    canvas.PURPLE,
    canvas.SKY,
)
DASHES = ("-", "--", ":", "-.")


class Line(NamedTuple):
    """A curve to draw: rates of `steps`, which see as many `tokens`."""

    name: str
    steps: Sequence[int]
    tokens: Sequence[int]
    rates: Sequence[float]


def tokens_per_step(lines: Sequence[Line]) -> float | None:
    """The one batch that all lines were trained with, in tokens; None where there are several."""
    found = {
        round(tokens / step, 6)
        for line in lines
        for step, tokens in zip(line.steps, line.tokens, strict=True)
        if step
    }
    return found.pop() if len(found) == 1 else None


def is_logarithmic(lines: Sequence[Line]) -> bool:
    """Do the peaks lie so far apart that a linear axis would hide some?"""
    peaks = [max(line.rates) for line in lines if max(line.rates, default=0.0) > 0]
    return len(peaks) > 1 and max(peaks) > 12 * min(peaks)


def lowest(lines: Sequence[Line]) -> float:
    """Where a logarithmic axis of rates begins: four decades below the highest rate at most."""
    positive = [rate for line in lines for rate in line.rates if rate > 0]
    return max(min(positive), max(positive) / 1e4)


def figure(lines: Sequence[Line]) -> bytes:
    """A PNG file: the rates over steps and, beside it where batches differ, over tokens."""
    import matplotlib

    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **canvas.RC}):
        batch = tokens_per_step(lines)
        columns = max(1, min(4, len(lines), 110 // (8 + max(len(line.name) for line in lines))))
        rows = -(-len(lines) // columns)
        drawn, axes = canvas.sheet(3.7 + 0.18 * rows, 1, 1 if batch else 2, sharey=True)
        _panel(axes[0], lines, "steps", "step")
        if batch:
            above = axes[0].secondary_xaxis("top", functions=(_times(batch), _times(1 / batch)))
            above.set_xlabel("tokens")
            above.xaxis.set_major_formatter(lambda value, _: amount(value))
            above.spines["top"].set_visible(True)
        else:
            _panel(axes[1], lines, "tokens", "tokens")
            axes[1].tick_params(labelleft=False)
        axes[0].set_ylabel("learning rate")
        handles, labels = axes[0].get_legend_handles_labels()
        drawn.legend(handles, labels, loc="outside lower center", ncols=columns)
        return canvas.png(drawn)


def _panel(axis: Any, lines: Sequence[Line], over: str, label: str) -> None:
    for i, line in enumerate(lines):
        style = {"color": COLOURS[i % len(COLOURS)], "ls": DASHES[i // len(COLOURS) % len(DASHES)]}
        axis.plot(getattr(line, over), line.rates, lw=1.9, label=line.name, **style)
    axis.set_xlabel(label)
    axis.set_xlim(0, 1.015 * (max(max(getattr(line, over)) for line in lines) or 1))
    axis.xaxis.set_major_formatter(lambda value, _: amount(value))
    if is_logarithmic(lines):
        axis.set_ylim(lowest(lines) / 1.5, 1.5 * max(max(line.rates) for line in lines))
        canvas.log_axis(axis.yaxis)
    else:
        axis.set_ylim(bottom=0)
        axis.yaxis.set_major_formatter(lambda value, _: canvas.short(float(value)))


def _times(factor: float) -> Any:
    return lambda x: x * factor


def amount(value: float) -> str:
    """A count as a person says it: 600, 12k, 375M, 1.2T."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            # thousands are written out up to ten of them
            return f"{value / (1e3 if letter == 'k' else size):.4g}{letter}"
    return f"{value:,.4g}" if value == math.floor(value) else f"{value:.3g}"
