"""The figure of the optimizers' experiment, from its results."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxhpo.report import canvas


def draw(result: Mapping[str, Any], path: Path) -> None:
    import matplotlib

    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **canvas.RC}):
        figure, axes = canvas.sheet(4.2, 1, 3, width_ratios=(1.15, 1.25, 1))
        decay, clipping, dtype = (result[name]["arms"] for name in ("decay", "clipping", "dtype"))
        names = [*(f"decoupled {c}" for c in ("0", "0.1", "0.3", "1", "3")), *_l2(decay)]
        _points(axes[0], decay, names, result["bigram"])
        axes[0].set_title("weight decay by kind")
        _points(axes[1], clipping, list(clipping), result["bigram"])
        axes[1].set_title(f"clipping, peak rate {result['clipping']['rate']:g}")
        order = [f"{kind}, decay {c}" for kind in ("float32", "bfloat16") for c in ("0", "0.3")]
        _points(axes[2], dtype, order, result["bigram"])
        axes[2].set_title("decay by parameters' dtype")
        axes[0].set_ylabel("final held-out loss (nats per token)")
        path.write_bytes(canvas.png(figure))


def _l2(arms: Mapping[str, Any]) -> list[str]:
    return [name for name in arms if name.startswith("L2")]


def _points(axis: Any, arms: Mapping[str, Any], names: Sequence[str], bigram: float) -> None:
    """Every run as a dot, one colour a seed; means of the runs that did not fail as bars."""
    palette = [canvas.BLUE, canvas.VERMILLION, canvas.GREEN, canvas.ORANGE, canvas.PURPLE]
    losses = [arms[name]["losses"] for name in names]
    sound = [x for row in losses for x in row if math.isfinite(x) and x < bigram]
    low, high = min(sound, default=0.0), max(sound, default=1.0)
    pad = 0.08 * (high - low) or 0.1
    lost = high + 2.2 * pad
    for place, row in enumerate(losses):
        good = [x for x in row if math.isfinite(x) and x < bigram]
        if good:
            axis.plot([place - 0.3, place + 0.3], [np.mean(good)] * 2, color=canvas.INK, lw=1.6)
        for seed, loss in enumerate(row):
            ok = math.isfinite(loss) and loss < bigram
            style = {"marker": "o", "ms": 5} if ok else {"marker": "X", "ms": 7}
            spot = place + 0.09 * (seed - (len(row) - 1) / 2)
            axis.plot(spot, loss if ok else lost, color=palette[seed % 5], ls="", **style)
    axis.set_ylim(low - pad, lost + pad if len(sound) < sum(map(len, losses)) else high + pad)
    if len(sound) < sum(map(len, losses)):
        axis.text(0.02, 0.985, "X: failed", transform=axis.transAxes, va="top", fontsize=8.5)
    axis.set_xticks(range(len(names)), names, rotation=35, ha="right", rotation_mode="anchor")
    axis.grid(axis="x", visible=False)
