"""Norms by role and effective learning rates of the best member, over its steps."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxhpo.report import canvas
from jaxhpo.report.curves import best_line
from jaxhpo.report.lineage import History, Lineage, Segment

PANELS = {
    "grad_norm/": "gradient norm, before clipping",
    "update_norm/": "norm of the update",
    "param_norm/": "norm of the parameters",
}
RATES = {
    "lr_per_norm": "rate / |w|",
    "lr_adam": "mean of rate / (sqrt(v) + eps)",
}
CLIPPED = "clipped/"


def components(history: History, lineage: Lineage, summary: Mapping[str, Any]) -> Any:
    """Four panels, and a fifth for the share of steps clipped where anything is clipped."""
    line = best_line(lineage, summary)
    names = sorted({name for row in line for name in row.diagnostics})
    if not any(name.startswith("grad_norm/") for name in names):
        return None
    roles = [name.removeprefix("grad_norm/") for name in names if name.startswith("grad_norm/")]
    shares = sorted({name for row in line for name in row.curves if name.startswith(CLIPPED)})
    figure, axes = canvas.sheet(7.2 if shares else 5.2, 3 if shares else 2, 2)
    colours = _colours([*roles, *(name.removeprefix(CLIPPED) for name in shares)])
    for axis, (prefix, title) in zip(axes, PANELS.items(), strict=False):
        axis.set_title(title)
        for role in roles:
            _draw(axis, _joined(line, f"{prefix}{role}"), colours[role], role)
        canvas.log_axis(axis.yaxis)
    _rates(axes[3], line, names)
    if shares:
        _shares(axes[4], line, shares, colours)
        axes[5].set_axis_off()
    for axis in axes[: 5 if shares else 4]:
        axis.set_xlim(line[0].begin, line[-1].end)
        axis.set_xlabel("step")
        for row in line:
            if row.is_exploit:
                axis.axvline(row.begin, ls=":", lw=1, color=canvas.MUTED, zorder=1)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=9)
    return figure


def _rates(axis: Any, line: Sequence[Segment], names: Sequence[str]) -> None:
    """The two definitions live on scales of their own: each has an axis."""
    axis.set_title("effective learning rate")
    sides = [axis, axis.twinx()] if "lr_adam" in names else [axis]
    looks = zip(RATES.items(), (canvas.BLUE, canvas.VERMILLION), strict=True)
    for side, ((name, label), colour) in zip(sides, looks, strict=False):
        _draw(side, _joined(line, name), colour, label)
        side.set_ylabel(label, color=colour)
        side.grid(side is axis)
    if len(sides) > 1:
        sides[1].spines["right"].set_visible(True)


def _shares(axis: Any, line: Sequence[Segment], names: Sequence[str], colours: Any) -> None:
    axis.set_title("share of steps clipped")
    for name in names:
        steps = [step for row in line for step in row.curves.get("step", ())]
        values = [value for row in line for value in row.curves.get(name, ())]
        role = name.removeprefix(CLIPPED)
        _draw(axis, _smooth(steps, values), colours[role], role)
    axis.set_ylim(-0.03, 1.03)
    if len(names) < 3:
        axis.legend(loc="best")


def _smooth(steps: Sequence[float], values: Sequence[float]) -> tuple[list[float], list[float]]:
    """Means over a fortieth of the line, so that shares of single steps read as shares."""
    width = max(1, len(steps) // 40)
    begins = range(0, len(values), width)
    means = [sum(values[i : i + width]) / len(values[i : i + width]) for i in begins]
    return [steps[min(i + width, len(steps)) - 1] for i in begins], means


def _joined(line: Sequence[Segment], name: str) -> tuple[list[float], list[float]]:
    rows = [row.diagnostics for row in line if name in row.diagnostics]
    pairs = [pair for row in rows for pair in zip(row["step"], row[name], strict=True)]
    return [step for step, _ in pairs], [value if value > 0 else float("nan") for _, value in pairs]


def _draw(axis: Any, curve: tuple[list[float], list[float]], colour: Any, label: str) -> None:
    axis.plot(*canvas.finite(*curve), color=colour, lw=1.5, label=label)


def _colours(roles: Sequence[str]) -> dict[str, Any]:
    palette = [canvas.BLUE, canvas.VERMILLION, canvas.GREEN, canvas.ORANGE, canvas.SKY]
    palette += [canvas.PURPLE, canvas.INK, canvas.MUTED, "#B8860B", "#7B3F00"]
    return {role: palette[i % len(palette)] for i, role in enumerate(dict.fromkeys(roles))}
