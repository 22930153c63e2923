"""What an adapter did with its room: the rank of each matrix, or the experts used, over steps."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxhpo.report import canvas
from jaxhpo.report.curves import best_line
from jaxhpo.report.lineage import History, Lineage, Segment

PANELS = {
    "rank/": "rank of each matrix (AdaLoRA)",
    "experts/": "experts that a token uses (AdaMoLE)",
}
MOST_LABELS = 24
"""Rows that are named; of more, some are."""


def allocation(history: History, lineage: Lineage, summary: Mapping[str, Any]) -> Any:
    """A map of matrices over steps; None for a run that logged neither."""
    line = best_line(lineage, summary)
    names = sorted({name for row in line for name in row.diagnostics}, key=_order)
    shown = {p: [n for n in names if n.startswith(p)] for p in PANELS}
    shown = {prefix: own for prefix, own in shown.items() if own}
    if not shown:
        return None
    rows = max(map(len, shown.values()))
    figure, axes = canvas.sheet(1.6 + 0.18 * min(rows, 40), 1, len(shown))
    for axis, (prefix, own) in zip(axes, shown.items(), strict=False):
        _map(figure, axis, line, prefix, own)
    return figure


def _map(
    figure: Any, axis: Any, line: Sequence[Segment], prefix: str, names: Sequence[str]
) -> None:
    """Rows are matrices, the first on top, each as its values at the steps logged."""
    curves = [_joined(line, name) for name in names]
    steps = curves[0][0]
    values = [
        [dict(zip(*curve, strict=True)).get(s, float("nan")) for s in steps] for curve in curves
    ]
    edges = [*steps, steps[-1] + (steps[-1] - steps[-2] if len(steps) > 1 else 1)]
    mesh = axis.pcolormesh(edges, range(len(names) + 1), values, cmap="viridis", vmin=0)
    axis.set_title(PANELS[prefix])
    axis.invert_yaxis()
    every = -(-len(names) // MOST_LABELS)
    axis.set_yticks([i + 0.5 for i in range(0, len(names), every)])
    axis.set_yticklabels([names[i].removeprefix(prefix) for i in range(0, len(names), every)])
    axis.grid(False)
    axis.set_xlabel("step")
    figure.colorbar(mesh, ax=axis, pad=0.015)


def _joined(line: Sequence[Segment], name: str) -> tuple[list[float], list[float]]:
    rows = [row.diagnostics for row in line if name in row.diagnostics]
    pairs = [pair for row in rows for pair in zip(row["step"], row[name], strict=True)]
    return [step for step, _ in pairs], [value for _, value in pairs]


def _order(name: str) -> tuple[str, int]:
    """By target, then by the number of the layer."""
    target, _, layer = name.rpartition("/")
    return target, int(layer) if layer.isdigit() else -1
