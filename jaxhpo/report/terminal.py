"""Curves as text: dots of two by four to a character, in the braille block of Unicode."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from jaxhpo.report import canvas
from jaxhpo.report.rates import Line, amount, is_logarithmic, lowest

COLOURS = ("blue", "red", "green", "yellow", "magenta", "cyan")
"""The terminal's own, in the order of the figure's."""

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_BRAILLE = 0x2800
_PLAIN = "*+ox#@"
"""Marks for terminals that can't show Unicode, one for each curve."""


class Piece(NamedTuple):
    """Text of one colour; None is the terminal's own."""

    text: str
    colour: str | None = None


def drawing(
    lines: Sequence[Line],
    over: str = "steps",
    width: int = 76,
    height: int = 14,
    unicode: bool = True,
    below: float | None = None,
) -> list[list[Piece]]:
    """Rows of text: axes with their numbers and the curves; `below` a step's tokens, a second row.

    `over` is what lies on the horizontal axis, "steps" or "tokens".
    """
    high = max(max(line.rates) for line in lines) or 1.0
    low = lowest(lines) if is_logarithmic(lines) else 0.0
    scale = math.log if low else float
    labels = {row: canvas.short(float(value)) for row, value in _levels(low, high, height).items()}
    margin = max(map(len, labels.values())) + 1
    wide = width - margin - 1 - len("  tokens")
    cells = _plot(lines, over, wide, height, (scale(low) if low else 0.0, scale(high)), scale)
    corner, wall, floor, tick = ("└", "│", "─", "┤") if unicode else ("+", "|", "-", "+")
    rows = []
    for row in range(height):
        edge = tick if row in labels else wall
        rows.append([Piece(f"{labels.get(row, ''):>{margin}}{edge}"), *_row(cells[row], unicode)])
    rows.append([Piece(" " * margin + corner + floor * wide)])
    last = max(max(getattr(line, over)) for line in lines) or 1
    rows.append([Piece(" " * (margin + 1) + _ticks(last, wide, over))])
    if below:
        rows.append([Piece(" " * (margin + 1) + _ticks(last * below, wide, "tokens"))])
    return rows


def legend(lines: Sequence[Line], width: int = 76, unicode: bool = True) -> list[list[Piece]]:
    """One row a curve: its mark, its name, and its highest and last rate."""
    rows = []
    wide = min(max(len(line.name) for line in lines), width - 32)
    for i, line in enumerate(lines):
        mark = "━━" if unicode else _PLAIN[i % len(_PLAIN)] * 2
        name = line.name if len(line.name) <= wide else f"{line.name[: wide - 3]}..."
        peak, last = canvas.short(float(max(line.rates))), canvas.short(float(line.rates[-1]))
        rows.append(
            [
                Piece(f"  {mark} ", COLOURS[i % len(COLOURS)]),
                Piece(f"{name:<{wide}}  peak {peak:<9} last {last}"),
            ]
        )
    return rows


def _levels(low: float, high: float, height: int) -> dict[int, float]:
    """Row -> the round rate there."""
    if low:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        values = [m * 10.0**power for power in range(first, last + 1) for m in (1, 3)]
        share = lambda value: math.log(value / low) / math.log(high / low)
        values = [value for value in values if low <= value <= high * 1.001]
    else:
        values = _round_numbers(high, 4)
        share = lambda value: value / high
    # upwards, so that the lowest of two that share a row is kept
    return {round((height - 1) * (1 - min(share(v), 1.0))): v for v in reversed(values)}


def _round_numbers(last: float, count: int) -> list[float]:
    """About `count` round numbers from zero to `last`."""
    size = 10.0 ** math.floor(math.log10(last / count))
    step = next(size * m for m in (1.0, 2.0, 2.5, 5.0, 10.0) if size * m * count >= last * 0.999)
    return [i * step for i in range(int(last / step + 0.01) + 1)]


def _plot(lines, over, wide, height, bounds, scale) -> list[list[tuple[int, int]]]:
    """Cells [height][wide] of (dots, curve), the later curve on top."""
    cells = [[(0, 0)] * wide for _ in range(height)]
    last = max(max(getattr(line, over)) for line in lines) or 1
    low, high = bounds
    across, down = 2 * wide - 1, 4 * height - 1

    def dot(x: int, y: int, curve: int) -> None:
        dots, owner = cells[y // 4][x // 2]
        dots = dots if owner == curve else 0
        cells[y // 4][x // 2] = (dots | _DOTS[y % 4][x % 2], curve)

    for curve, line in enumerate(lines):
        before: tuple[int, int] | None = None
        for place, rate in zip(getattr(line, over), line.rates, strict=True):
            x = round(across * place / last)
            level = scale(max(rate, 1e-300)) if low else rate
            y = round(down * (1 - min(max((level - low) / ((high - low) or 1.0), 0.0), 1.0)))
            for between in _between(before, (x, y)):
                dot(*between, curve)
            before = x, y
    return cells


def _between(start: tuple[int, int] | None, end: tuple[int, int]) -> list[tuple[int, int]]:
    """The dots of a straight stroke, its first left out."""
    if start is None:
        return [end]
    (x, y), (u, v) = start, end
    count = max(abs(u - x), abs(v - y))
    return [
        (x + round((u - x) * i / count), y + round((v - y) * i / count))
        for i in range(1, count + 1)
    ]


def _row(cells: list[tuple[int, int]], unicode: bool) -> list[Piece]:
    pieces: list[Piece] = []
    for dots, curve in cells:
        mark = chr(_BRAILLE + dots) if unicode else _PLAIN[curve % len(_PLAIN)]
        pieces.append(Piece(mark, COLOURS[curve % len(COLOURS)]) if dots else Piece(" "))
    return pieces


def _ticks(last: float, wide: int, name: str) -> str:
    """Round numbers under an axis where they are, and beyond it what they count."""
    row = [" "] * (wide + 1)
    for value in _round_numbers(last, 5):
        text = amount(value)
        at = round((wide - 1) * value / last) - len(text) // 2
        at = min(max(at, 0), len(row) - len(text))
        if not "".join(row[max(at - 1, 0) : at + len(text) + 1]).strip():
            row[at : at + len(text)] = text
    return "".join(row).rstrip().ljust(wide) + f" {name}"
