"""The report page: one self-contained HTML file, with every figure inside it."""

import base64
import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from jaxhpo.errors import UsageError
from jaxhpo.report import sections
from jaxhpo.report.dimensions import dimensions
from jaxhpo.report.figures import FIGURES, draw
from jaxhpo.report.lineage import History, Lineage
from jaxhpo.report.markup import Markup, tag
from jaxhpo.report.summary import summarise
from jaxhpo.report.tracing import trace


def write_report(run_dir: str | os.PathLike[str]) -> Path:
    """Writes `report/*.png` and `report/index.html` of a run, finished or not; gives the page.

    Raises `UsageError` if `run_dir` is no run directory, nothing was reported yet, or the disk is
    full.
    """
    from jaxhpo.record import RunDirectory
    from jaxhpo.record.history import history

    run = RunDirectory.open(run_dir)
    past = history(run.log)
    if not past.reports:
        raise UsageError(f"{run_dir} has no report yet: a page needs one finished segment at least")
    lineage, summary = trace(past), summarise(past)
    images = draw(past, lineage, summary)
    for name in set(FIGURES) - set(images):
        (run.report / f"{name}.png").unlink(missing_ok=True)
    for name, image in images.items():
        run.write_bytes(f"{run.report.name}/{name}.png", image)
    text = page(run.name, past, lineage, summary, images)
    return run.write_text(f"{run.report.name}/index.html", text)


def page(
    name: str,
    history: History,
    lineage: Lineage,
    summary: Mapping[str, Any],
    images: Mapping[str, bytes],
) -> str:
    """The page's HTML. `images` maps names of `FIGURES` to PNG files."""
    dims = [dim.name for dim in dimensions(history, lineage)]
    parts = [(FIGURES[key].title, key, _figure(key, image)) for key, image in images.items()]
    parts.append(("Members", "members", sections.members(summary, dims)))
    written = sections.samples(history)
    if written:
        parts.append(("Sample", "sample", written))
    parts.append(("Costs", "costs", sections.costs(summary)))
    saved = sections.checkpoints(history)
    if saved is not None:
        parts.append(("Checkpoints", "checkpoints", saved))
    parts.append(("Configuration", "configuration", sections.settings(history)))
    links = [tag("a", title, href=f"#{key}") for title, key, _ in parts]
    body = [tag("section", tag("h2", title, id=key), part) for title, key, part in parts]
    head = sections.header(name, history, summary)
    return _document(f"{name} · jaxhpo", tag("main", head, tag("nav", links), body))


def _document(title: str, body: Markup) -> str:
    css = Markup(resources.files("jaxhpo.report").joinpath("page.css").read_text(encoding="utf-8"))
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", css),
    )
    return "<!doctype html>\n" + tag("html", head, tag("body", body), lang="en") + "\n"


def _figure(key: str, image: bytes) -> Markup:
    source = "data:image/png;base64," + base64.b64encode(image).decode("ascii")
    plot = FIGURES[key]
    return tag("figure", tag("figcaption", plot.caption), tag("img", src=source, alt=plot.title))
