"""Columns of text, and numbers as people read them."""

from collections.abc import Iterable, Sequence


def aligned(rows: Iterable[Iterable[str]], numbers: bool = False) -> str:
    """Rows in columns: the first is a name, on the left (unless `numbers`); the others end at one
    edge.

    >>> print(aligned([("layers", "2"), ("width", "64")]))
    layers   2
    width   64
    """
    table = [tuple(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(_line(row, widths, numbers) for row in table)


def _line(row: Sequence[str], widths: Sequence[int], numbers: bool) -> str:
    name, *rest = row
    first = f"{name:>{widths[0]}}" if numbers else f"{name:<{widths[0]}}"
    cells = (f"{cell:>{width}}" for cell, width in zip(rest, widths[1:], strict=True))
    return "  ".join([first, *cells]).rstrip()


def count(value: float) -> str:
    """A large number in short.

    >>> count(124_439_808), count(300e9), count(512)
    ('124M', '300B', '512')
    """
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def size_text(size: float) -> str:
    """Bytes in a binary unit.

    >>> size_text(500), size_text(3 * 2**20)
    ('500 B', '3.00 MiB')
    """
    for unit, scale in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= scale:
            return f"{size / scale:,.2f} {unit}"
    return f"{size:.0f} B"
