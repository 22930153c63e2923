"""The table of figures: file name, title, caption and the function that draws it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from jaxhpo.report import (
    allocation,
    canvas,
    components,
    curves,
    dimensions,
    importance,
    schedule,
    searching,
    throughput,
    tree,
)
from jaxhpo.report.lineage import History, Lineage
from jaxhpo.report.tracing import is_search


@dataclass(frozen=True)
class Plot:
    """`draw(history, lineage, summary)` gives a figure, or None if there is nothing to show.

    `of` says what it is for: a population that tunes itself, a search whose trials come and go, or
    any run.
    """

    title: str
    caption: str
    draw: Callable[[History, Lineage, Mapping[str, Any]], Any]
    of: Literal["population", "search", "any"] = "any"


FIGURES: dict[str, Plot] = {
    "learning-curves": Plot(
        "Learning curves",
        "Held-out loss over each model's own steps, those of its ancestors included: a copied "
        "winner is a curve that leaves its parent's.",
        curves.learning_curves,
        "population",
    ),
    "search-curves": Plot(
        "Learning curves",
        "Held-out loss of every trial over its steps. Dotted lines are rungs: of the trials that "
        "came so far, so many went on. On the right, the best so far over what it cost.",
        searching.search_curves,
        "search",
    ),
    "rank-correlation": Plot(
        "What early scores foretold",
        "Each dot is a trial: its score at a rung, and at the end; ρ is Spearman's rank "
        "correlation. Trials that were let go have no final score, so among survivors alone, "
        "chosen by the early score, ρ is biased towards zero; search.continued trains a sample of "
        "the others to the end.",
        searching.rank_correlation,
        "search",
    ),
    "importance": Plot(
        "Importance of hyperparameters",
        "PED-ANOVA: the share of each dimension in telling good trials from the others, at the "
        "step at which most trials can be compared.",
        importance.importance,
        "search",
    ),
    "slices": Plot(
        "Score against each hyperparameter",
        "One dot for each trial, at its last score; dark ones trained longer. The diamond is the "
        "best trial.",
        importance.slices,
        "search",
    ),
    "contours": Plot(
        "Pairs of the most important hyperparameters",
        "Scores between the trials (dots), interpolated; dark is low, which is better.",
        importance.contours,
        "search",
    ),
    "schedule": Plot(
        "Schedule of the best member",
        "What the best member and its ancestors trained with, from birth to the end. Dotted lines "
        "mark exploits: the line moved to another place of the population.",
        schedule.discovered_schedule,
    ),
    "lineage": Plot(
        "Lineage",
        "Each lane is a place in the population, ordered by final rank; the small numbers are "
        "trials. An arrow is an exploit: a loser's place takes over a winner's weights and "
        "moments.",
        tree.lineage_tree,
        "population",
    ),
    "hyperparameters": Plot(
        "Hyperparameters over time",
        "Every value tried, coloured by the final rank that its line reached; circles are "
        "exploits, each followed by a changed value.",
        dimensions.hyperparameters,
        "population",
    ),
    "loss-by-hyperparameter": Plot(
        "Final loss against each hyperparameter",
        "One mark for each member, at the value that it ended with.",
        dimensions.final_losses,
        "population",
    ),
    "gradient-norms": Plot(
        "Gradient norms",
        "Global norm of the gradient before clipping.",
        curves.gradient_norms,
    ),
    "components": Plot(
        "Norms by component",
        "Norms over all layers of the best member's gradient, update and parameters, by role; its "
        "learning rate over the norm of its parameters, and Adam's mean rate over the root of the "
        "second moment; and how often clipping changed its gradient.",
        components.components,
    ),
    "allocation": Plot(
        "What the adapter used",
        "Of the best member, over its steps: the rank that AdaLoRA leaves each matrix, the layers "
        "of a projection below each other; or how many of AdaMoLE's experts a token uses.",
        allocation.allocation,
    ),
    "throughput": Plot(
        "Throughput",
        "Tokens trained on in a second of wall time, selection included, and what the run spent "
        "its time on. A segment's time is shared out by its training and its probe steps.",
        throughput.throughput,
    ),
}


def draw(history: History, lineage: Lineage, summary: Mapping[str, Any]) -> dict[str, bytes]:
    """Every figure that this run has data for, as a PNG file, by name."""
    import matplotlib

    images = {}
    forks = any(row.is_exploit for row in lineage.segments)
    kinds = {"any", "search" if is_search(history) else "population"}
    # a person's own matplotlibrc must not change a report
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **canvas.RC}):
        for name, plot in FIGURES.items():
            if plot.of not in kinds and not (forks and name == "lineage"):
                continue
            figure = plot.draw(history, lineage, summary)
            if figure is not None:
                images[name] = canvas.png(figure)
    return images
