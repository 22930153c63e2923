"""The figure of one token: its distribution at several temperatures, and what filters keep."""

from typing import Any

from jaxhpo.report import canvas

COLOURS = (canvas.BLUE, canvas.SKY, canvas.ORANGE, canvas.VERMILLION, canvas.PURPLE, canvas.GREEN)


def draw_explanation(found: Any) -> bytes:
    """A PNG of an `Explanation`: on the left a bar for each temperature, on the right a row for
    each filter whose marks are the tokens that it keeps, as large as they are likely."""
    import matplotlib

    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **canvas.RC}):
        count = len(found.texts)
        figure, (left, right) = canvas.sheet(
            max(3.6, 0.38 * count + 1.2), 1, 2, width_ratios=(1.5, 1), sharey=True
        )
        _temperatures(left, found)
        _filters(right, found)
        left.set_yticks(range(count), [_label(text) for text in found.texts])
        left.set_ylim(count - 0.4, -0.6)
        left.tick_params(axis="y", length=0, labelcolor=canvas.INK)
        prompt = found.prompt if len(found.prompt) <= 60 else "..." + found.prompt[-57:]
        figure.suptitle(_label(f"after {prompt!r}"), x=0.01, ha="left", fontsize=10)
        return canvas.png(figure)


def _temperatures(axis: Any, found: Any) -> None:
    several = len(found.temperatures)
    height = 0.8 / several
    for place, (temperature, row) in enumerate(zip(found.temperatures, found.chances, strict=True)):
        spots = [i + (place - (several - 1) / 2) * height for i in range(len(row))]
        colour = COLOURS[place % len(COLOURS)]
        entropy = found.entropies[place]
        label = f"T = {temperature:g} (entropy {entropy:.2f} nats)"
        axis.barh(spots, row, height=0.92 * height, color=colour, label=label)
    axis.set(title="probability at each temperature", xlabel="probability of the next token")
    axis.grid(axis="y", visible=False)
    axis.legend(loc="lower right")


def _filters(axis: Any, found: Any) -> None:
    for place, kept in enumerate(found.filters):
        live = [i for i, chance in enumerate(kept.chances) if chance > 0]
        gone = [i for i, chance in enumerate(kept.chances) if chance <= 0]
        sizes = [20 + 260 * kept.chances[i] for i in live]
        axis.scatter([place] * len(live), live, s=sizes, color=canvas.BLUE, zorder=3)
        axis.scatter([place] * len(gone), gone, s=14, marker="x", color=canvas.FAINT, zorder=3)
    names = [
        f"{kept.name}\n{kept.count:,} token{'s' * (kept.count != 1)}, {kept.mass:.0%}"
        for kept in found.filters
    ]
    axis.set_xticks(range(len(names)), names, rotation=35, ha="right", rotation_mode="anchor")
    axis.set_xlim(-0.6, len(names) - 0.4)
    axis.set(title=f"what each filter keeps at T = {found.temperature:g}")
    axis.grid(axis="x", visible=False)
    axis.tick_params(axis="x", length=0, labelcolor=canvas.INK)
    axis.tick_params(axis="y", length=0)


def _label(text: str) -> str:
    """Text that matplotlib takes as it is: a dollar would begin mathematics."""
    return text.replace("$", r"\$")
