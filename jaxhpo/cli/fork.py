"""`jaxhpo fork RUN`: train on from a checkpoint of a run, with what is kept and reset stated."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxhpo.cli.launch import launch, show
from jaxhpo.cli.options import parse
from jaxhpo.cli.positional import existing
from jaxhpo.config.run import ForkRun
from jaxhpo.errors import UsageError

if TYPE_CHECKING:
    from jaxhpo.study import Outcome

_LISTS = ("at", "decay", "shape", "keep", "reset", "average")
"""Options whose values may be written with commas."""

USAGE = "jaxhpo fork RUN --at STEP|TOKENS|stable-end|best|last"


def fork(run: Path | str | None = None, config: ForkRun | None = None, **options: Any) -> "Outcome":
    """Forks a run. `options` are fields of ForkRun; what is left out is the parent's.

    Give a whole `config` instead to say everything. Raises UsageError for what can't be forked, and
    what `train` raises.
    """
    if config is None:
        if run is None:
            raise UsageError("run is not given; fork(run, at=...) or fork(config=ForkRun(...))")
        from jaxhpo.study.inheritance import inherit

        config = replace(inherit(run), **options)
    elif run is not None or options:
        raise UsageError("config says everything already; give a run and options, or a config")
    return launch(config)


def main(argv: Sequence[str]) -> int:
    return show(fork(config=asked(argv)))


def asked(argv: Sequence[str]) -> ForkRun:
    """The fork that a command line describes: a run directory, then options over the parent's."""
    if not argv or argv[0].startswith("-"):
        if "-h" in argv or "--help" in argv:
            parse(ForkRun, ["--help"], USAGE)
        raise UsageError(f"no run directory; usage: {USAGE}")
    path, options = existing(argv[0]), with_commas(argv[1:])
    from jaxhpo.study.inheritance import inherit

    return parse(ForkRun, options, USAGE, inherit(path))


def with_commas(argv: Sequence[str]) -> list[str]:
    """The words of a command line with lists such as `--decay 100,200` taken apart.

    >>> with_commas(["--decay", "100,200", "--shape=linear,cosine", "--out", "a,b"])
    ['--decay', '100', '200', '--shape', 'linear', 'cosine', '--out', 'a,b']
    """
    words: list[str] = []
    inside = False
    for word in argv:
        key, equals, text = word.partition("=")
        if word.startswith("--"):
            inside = key.removeprefix("--") in _LISTS
            words += [key, *text.split(",")] if inside and equals else [word]
        else:
            words += word.split(",") if inside else [word]
    return words


def account(past: Any) -> str:
    """Where a fork began, what became of each child, and what it cost."""
    from jaxhpo.study.origin import Origin, describe

    origin = Origin.of_event(past.fork)
    return "\n".join([*describe(origin), "", *children(past), "", costs(past)])


def children(past: Any) -> list[str]:
    """One line for each child: where it began, its decay, its tokens and what it reached."""
    from jaxhpo.record.keeping import finite

    event, start = past.fork, past.start
    results = {row["trial"]: row for report in past.reports for row in report["results"]}
    rows = [("trial", "from step", "steps", "shape", "tokens", "held-out loss", "bits/byte")]
    shape = start["config"]["schedule"]["decay_shape"]
    for number, child in enumerate(event["children"]):
        trial = len(event["sources"]) + number
        source = event["sources"][child["source"]]
        loss = results.get(trial, {}).get("loss")
        shown, bits = "" if loss is None else "diverged", ""
        if finite(loss):
            shown = f"{loss:.4f}"
            bits = f"{loss / math.log(2) / start['bytes_per_token']:.4f}"
        rows.append(
            (
                str(trial),
                str(source["step"]),
                str(child["steps"]),
                str(child["point"].get("schedule.decay_shape", shape)),
                f"{source['tokens'] + child['steps'] * start['tokens_per_step']:,}",
                shown,
                bits,
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    pad = lambda row: "  ".join(f"{text:>{width}}" for text, width in zip(row, widths, strict=True))
    return [pad(row) for row in rows]


def costs(past: Any) -> str:
    """What the children cost, and what as many separate cosine runs would have cost."""
    spent, tokens = past.fork["costs"], past.start["tokens_per_step"]
    child, trunk, separate = (spent[f"{n}_steps"] for n in ("child", "trunk", "separate"))
    models = len(past.fork["children"])
    runs = "one cosine run" if models == 1 else f"{models} cosine runs"
    return (
        f"{child:,} steps ({child * tokens:,} tokens) on a trunk of {trunk:,} steps: "
        f"{trunk + child:,} in all; {runs} from scratch to the same lengths: {separate:,} steps, "
        f"{separate / (trunk + child):.2f} times as many"
    )
