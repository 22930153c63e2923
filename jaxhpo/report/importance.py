"""Which hyperparameters mattered: importance, slices and contours of a search."""

import itertools
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from jaxhpo.report import canvas
from jaxhpo.report.dimensions import Dimension, dimensions
from jaxhpo.report.lineage import History, Lineage
from jaxhpo.report.trials import Curve, comparable, trial_curves

FEWEST = 8
"""Trials below which an importance would be noise."""

FEW_VALUES = 4
"""So few different values of a dimension are written out on its axis."""


def importances(curves: Sequence[Curve], step: int, dims: Sequence[Dimension]) -> dict[str, float]:
    """Share of each dimension in what tells good trials from the others; empty if too few.

    PED-ANOVA on the scores at `step`. Source: Watanabe et al. 2023 (arXiv 2304.10255), as Optuna
    computes it.
    """
    whole = [dim for dim in dims if all(dim.at(curve.point) is not None for curve in curves)]
    values = {dim.name: {dim.at(curve.point) for curve in curves} for dim in whole}
    whole = [dim for dim in whole if len(values[dim.name]) > 1]
    if len(curves) < FEWEST or not whole:
        return {}
    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
    from optuna.trial import create_trial

    spaces = {dim.name: _distribution(dim, sorted(values[dim.name])) for dim in whole}
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the evaluator is marked experimental in older versions
        study = optuna.create_study()
        for curve in curves:
            point = {dim.name: dim.at(curve.point) for dim in whole}
            study.add_trial(create_trial(params=point, distributions=spaces, value=curve.at(step)))
        found = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
    return {name: float(share) for name, share in found.items() if math.isfinite(share)}


def _distribution(dim: Dimension, values: Sequence[float]) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if dim.choices or len(values) <= 3:
        return CategoricalDistribution(values)
    return FloatDistribution(values[0], values[-1], log=dim.is_log)


def importance(history: History, lineage: Lineage, summary: Mapping[str, Any]) -> Any:
    """A bar for each dimension, the most important first."""
    step, curves = comparable(trial_curves(lineage))
    found = importances(curves, step, dimensions(history, lineage))
    if not found:
        return None
    names = sorted(found, key=lambda name: found[name])
    figure, (axis,) = canvas.sheet(0.9 + 0.32 * len(names))
    axis.barh(names, [found[name] for name in names], color=canvas.BLUE, height=0.62)
    for at, name in enumerate(names):
        axis.annotate(f"{found[name]:.2f}", (found[name], at), xytext=(4, 0),
                      textcoords="offset points", va="center", fontsize=8.5)  # fmt: skip
    axis.set(xlabel=f"share of importance at step {step}, over {len(curves)} trials")
    axis.set_xlim(0, 1.1 * max(found.values()) or 1)
    axis.grid(visible=False, axis="y")
    return figure


def slices(history: History, lineage: Lineage, summary: Mapping[str, Any]) -> Any:
    """The last score of every trial against each hyperparameter, dark where it trained longest."""
    curves = [c for c in trial_curves(lineage) if canvas.isfinite(c.scores[-1])]
    dims = dimensions(history, lineage)
    if not dims or len(curves) < 2:
        return None
    curves.sort(key=lambda curve: curve.steps[-1])
    columns = min(3, len(dims))
    lines = -(-len(dims) // columns)
    figure, axes = canvas.sheet(0.7 + 2.3 * lines, lines, columns, sharey=True)
    low, high = canvas.robust_limits([curve.scores[-1] for curve in curves])
    steps = [curve.steps[-1] for curve in curves]
    for axis, dim in zip(axes, dims, strict=False):
        axis.set_title(dim.name)
        shown = [(dim.at(c.point), min(c.scores[-1], high), c.steps[-1]) for c in curves]
        shown = [row for row in shown if row[0] is not None]
        x, y, reached = zip(*shown, strict=True)
        style = {"cmap": "viridis_r", "edgecolors": "white", "linewidths": 0.6, "s": 34}
        dots = axis.scatter(x, y, c=reached, vmin=0, vmax=max(steps), zorder=3, **style)
        best = summary["best"]
        leader = next((c for c in curves if best and c.trial == best["trial"]), None)
        if leader is not None and dim.at(leader.point) is not None:
            colour = {"color": canvas.VERMILLION, "mec": "white", "zorder": 5}
            axis.plot(dim.at(leader.point), min(leader.scores[-1], high), "D", ms=8, **colour)
        axis.set_ylim(low, high + 0.02 * (high - low))
        dim.dress(axis.xaxis)
        values = sorted(set(x))
        few = len(values) <= FEW_VALUES and not dim.choices
        if few and stand_apart(values, axis.get_xscale() == "log"):
            axis.set_xticks(values, [canvas.short(value) for value in values])
            axis.minorticks_off()
            axis.margins(x=0.25)
    for axis in axes[len(dims) :]:
        axis.set_axis_off()
    for axis in axes[::columns]:
        axis.set_ylabel(_score(summary))
    figure.colorbar(dots, ax=list(axes), label="steps trained", pad=0.015, aspect=24, shrink=0.7)
    return figure


def _score(summary: Mapping[str, Any]) -> str:
    """What trials are ranked by: lower is better, so a metric may be negated."""
    metric = summary["metric"]
    return "score (nats)" if metric == "loss" else f"score ({metric}, lower is better)"


def stand_apart(values: Sequence[float], logarithmic: bool) -> bool:
    """Is there room under a panel for the numbers of all these ascending values?

    >>> stand_apart([1, 2, 4, 8], False), stand_apart([0.0056, 0.0180, 0.0185], True)
    (True, False)
    """
    places = [math.log(value) if logarithmic else value for value in values]
    wide = max(len(canvas.short(value)) for value in values)
    gaps = [b - a for a, b in itertools.pairwise(places)]
    return all(gap >= 0.05 * wide * (places[-1] - places[0]) for gap in gaps)


def contours(history: History, lineage: Lineage, summary: Mapping[str, Any]) -> Any:
    """Scores over the pairs of the most important numeric dimensions."""
    step, curves = comparable(trial_curves(lineage))
    dims = [dim for dim in dimensions(history, lineage) if not dim.choices]
    shares = importances(curves, step, dims)
    varied = [d for d in dims if d.name in shares and len({d.at(c.point) for c in curves}) > 3]
    leading = sorted(varied, key=lambda dim: -shares[dim.name])[:3]
    pairs = [(a, b) for i, a in enumerate(leading) for b in leading[i + 1 :]]
    if not pairs:
        return None
    figure, axes = canvas.sheet(3.3, 1, len(pairs))
    scores = [curve.at(step) for curve in curves]
    low, high = canvas.robust_limits(scores)
    for axis, (a, b) in zip(axes, pairs, strict=True):
        field = _contour(axis, a, b, curves, [min(score, high) for score in scores], (low, high))
    label = f"{_score(summary)}, step {step}"
    bar = figure.colorbar(field, ax=list(axes), label=label, pad=0.015, aspect=24, shrink=0.8)
    bar.ax.yaxis.set_major_formatter("{x:.2f}")
    return figure


def _contour(
    axis: Any,
    a: Dimension,
    b: Dimension,
    curves: Sequence[Curve],
    scores: Sequence[float],
    limits: tuple[float, float],
) -> Any:
    """One pair: filled contours between the trials, which are the dots."""
    x, y = [a.at(c.point) for c in curves], [b.at(c.point) for c in curves]
    scaled = lambda dim, values: [math.log(v) if dim.is_log else v for v in values]
    from matplotlib.tri import Triangulation

    low, high = limits
    levels = [low + (high - low) * i / 12 for i in range(13)]
    # triangles are made where distances mean something: in the dimensions' own scales
    mesh = Triangulation(scaled(a, x), scaled(b, y))
    drawn = Triangulation(x, y, mesh.triangles)
    field = axis.tricontourf(drawn, scores, levels=levels, cmap="viridis", extend="both")
    axis.plot(x, y, "o", ms=3.5, color="white", mec=canvas.INK, mew=0.6, clip_on=False, zorder=4)
    axis.set(xlabel=a.name, ylabel=b.name)
    axis.grid(visible=False)
    a.dress(axis.xaxis)
    b.dress(axis.yaxis)
    return field
