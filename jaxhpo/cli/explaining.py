"""What the next token is drawn from, as a table, a figure and JSON."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxhpo.cli.progress import progress
from jaxhpo.cli.samples import explanation_table, who
from jaxhpo.errors import UsageError
from jaxhpo.nn.config import SamplingConfig

if TYPE_CHECKING:
    from jaxhpo.study.writing import Explanation, Writer


def show_explanation(
    writer: "Writer",
    ids: Sequence[int],
    settings: SamplingConfig,
    temperatures: Sequence[float],
    figure: Path | None,
    as_json: bool,
) -> int:
    """Prints what the next token is drawn from, and draws it: to a file that is asked for, else
    into the run's report; a folder that is no run is left as it is."""
    from jaxhpo.study.writing import explain

    with progress("compiling"):
        found = explain(writer, ids, settings, temperatures)
    if as_json:
        print(json.dumps({**who(writer), **_plain(found)}))
        return 0
    trained = writer.trained
    if figure is None and trained.trial is not None:
        figure = trained.run / "report" / "explain.png"
    if figure is not None:
        _draw(found, figure)
    print(explanation_table(found) + ("" if figure is None else f"\n\nfigure  {figure}"))
    return 0


def _draw(found: "Explanation", path: Path) -> None:
    from jaxhpo.report.explain import draw_explanation

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(draw_explanation(found))
    except OSError as error:
        raise UsageError(f"figure={path}: {error.strerror or error}") from None


def _plain(found: "Explanation") -> dict[str, Any]:
    return {
        "prompt": found.prompt,
        "tokens": list(found.tokens),
        "texts": list(found.texts),
        "temperatures": {
            str(temperature): {"chances": row.tolist(), "entropy": entropy}
            for temperature, row, entropy in zip(
                found.temperatures, found.chances, found.entropies, strict=True
            )
        },
        "temperature": found.temperature,
        "filters": {
            kept.name: {"chances": kept.chances.tolist(), "kept": kept.count, "mass": kept.mass}
            for kept in found.filters
        },
    }
