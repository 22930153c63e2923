"""The table of figures: file name, title, caption and the function that draws it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jaxhpo.report import canvas, components, curves, dimensions, schedule, throughput, tree
from jaxhpo.report.lineage import History, Lineage


@dataclass(frozen=True)
class Plot:
    """`draw(history, lineage, summary)` gives a figure, or None if there is nothing to show."""

    title: str
    caption: str
    draw: Callable[[History, Lineage, Mapping[str, Any]], Any]


FIGURES: dict[str, Plot] = {
    "learning-curves": Plot(
        "Learning curves",
        "Held-out loss over each model's own steps, those of its ancestors included: a copied "
        "winner is a curve that leaves its parent's.",
        curves.learning_curves,
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
    ),
    "hyperparameters": Plot(
        "Hyperparameters over time",
        "Every value tried, coloured by the final rank that its line reached; circles are "
        "exploits, each followed by a changed value.",
        dimensions.hyperparameters,
    ),
    "loss-by-hyperparameter": Plot(
        "Final loss against each hyperparameter",
        "One mark for each member, at the value that it ended with.",
        dimensions.final_losses,
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
    # a person's own matplotlibrc must not change a report
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **canvas.RC}):
        for name, plot in FIGURES.items():
            figure = plot.draw(history, lineage, summary)
            if figure is not None:
                images[name] = canvas.png(figure)
    return images
