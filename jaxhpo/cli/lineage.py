"""`jaxhpo lineage RUN...`: draw who descends from whom, over several run directories."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxhpo.cli.positional import existing
from jaxhpo.errors import UsageError

if TYPE_CHECKING:
    from jaxhpo.report.family import Family, Relative

USAGE = "usage: jaxhpo lineage RUN... [--out FILE.png]"
MOST_SHOWN = 200
"""Trials that the terminal shows; of more, those that have descendants or end a run."""
MOST_CHANGES = 4
WIDE = 240
"""Columns of what is no terminal."""

FIGURE = "lineage-of-runs.png"


def lineage(*runs: Path | str, out: Path | str | None = None) -> Path:
    """Draws the tree of several runs into `out`, by default into the last one's report folder.

    Returns the figure's path. Raises UsageError where one is no run directory or is given twice.
    """
    relatives = _family(runs)
    from jaxhpo.record.directory import RunDirectory
    from jaxhpo.report.branches import draw_family

    image = draw_family(relatives)
    if out is None:
        last = RunDirectory.open(runs[-1])
        return last.write_bytes(f"{last.report.name}/{FIGURE}", image)
    try:
        Path(out).write_bytes(image)
    except OSError as error:
        raise UsageError(
            f"out={out}: {error.strerror}; give a file in a folder that is there"
        ) from None
    return Path(out)


def main(argv: Sequence[str]) -> int:
    runs, out = _arguments(argv)
    from rich.console import Console

    width = None if sys.stdout.isatty() else WIDE
    console = Console(file=sys.stdout, highlight=False, width=width)
    for tree in trees(_family(runs)):
        console.print(tree)
    print(f"\nfigure  {lineage(*runs, out=out)}")
    return 0


def _arguments(argv: Sequence[str]) -> tuple[list[Path], str | None]:
    if "-h" in argv or "--help" in argv:
        print(f"{USAGE}\n\n{__doc__}\n\n  RUN    run directories, in any order")
        print("  --out  where the figure goes (default: the last run's report folder)")
        raise SystemExit(0)
    words, out = list(argv), None
    for place, word in enumerate(words):
        key, equals, text = word.partition("=")
        if key == "--out":
            out = text if equals else next(iter(words[place + 1 :]), "")
            if not out:
                raise UsageError(f"--out has no value; {USAGE}")
            del words[place : place + (1 if equals else 2)]
            break
    for word in words:
        if word.startswith("-"):
            raise UsageError(f"unknown option {word}; {USAGE}")
    if not words:
        raise UsageError(f"no run directory; {USAGE}")
    return [existing(word) for word in words], out


def _family(runs: Sequence[Path | str]) -> "Family":
    from jaxhpo.record.directory import RunDirectory
    from jaxhpo.record.history import history
    from jaxhpo.report.family import family

    if not runs:
        raise UsageError("no run directory; lineage(run, ...)")
    found = family(history(RunDirectory.open(run).log) for run in runs)
    if not found:
        raise UsageError("none of these runs has finished a segment yet: there is nothing to draw")
    return found


def trees(relatives: "Family") -> list[Any]:
    """The roots as rich trees with all that descends from them."""
    from rich.text import Text
    from rich.tree import Tree

    from jaxhpo.report.family import best, children, in_order

    winner, below = best(relatives), children(relatives)
    shown = {each.key for _, each in in_order(relatives)}
    if len(shown) > MOST_SHOWN:
        shown = {key for key in shown if below.get(key)} | {winner.key}
    nodes: dict[Any, Any] = {}
    roots = []
    for _, each in in_order(relatives):
        if each.key not in shown:
            continue
        text = Text(_label(each), style="bold" if each is winner else "")
        if each is winner:
            text.append("  best")
        if each.parent is None:
            nodes[each.key] = Tree(text)
            roots.append(nodes[each.key])
        else:
            nodes[each.key] = nodes[each.parent].add(text)
    if len(shown) < len(relatives):
        hidden = len(relatives) - len(shown)
        roots.append(Text(f"{hidden} trials without descendants are left out"))
    return roots


def _label(each: "Relative") -> str:
    from jaxhpo.report.canvas import loss_text

    steps = f"step {each.end}" if not each.begin else f"steps {each.begin} to {each.end}"
    words = [f"{each.run} trial {each.trial}", steps, f"loss {loss_text(each.loss)}"]
    if each.missing:
        words.append(f"parent run {each.missing} is not given")
    if each.reason != "newborn":
        words.append(each.reason)
    changed = list(each.difference.items())
    words += [f"{name.rpartition('.')[2]} {_change(pair)}" for name, pair in changed[:MOST_CHANGES]]
    if len(changed) > MOST_CHANGES:
        words.append(f"{len(changed) - MOST_CHANGES} more")
    return ", ".join(words)


def _change(pair: Sequence[Any]) -> str:
    from jaxhpo.report.canvas import short

    old, new = (None if value is None else short(value) for value in pair)
    return f"{new}" if old is None else f"{old}→{new}"
