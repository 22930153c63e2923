"""`jaxhpo schedule NAME ...`: draw learning-rate schedules over steps and tokens."""

import sys
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxhpo.cli.options import parse
from jaxhpo.config.fields import hints, suggest
from jaxhpo.config.recipes import RECIPES
from jaxhpo.config.run import STEPS, TrainRun
from jaxhpo.errors import UsageError
from jaxhpo.schedules.config import ScheduleConfig

KINDS: tuple[str, ...] = typing.get_args(hints(ScheduleConfig)["kind"])
USAGE = "usage: jaxhpo schedule NAME[:FIELD=VALUE...] ... [--from RUN ...] [OPTIONS]"
FROM = "--from"


@dataclass(frozen=True)
class View:
    """How the named schedules are drawn; options of the schedule go for all of them."""

    steps: int | None = None
    """length of the run (default: a recipe's own, else 600)"""
    tokens_per_step: int | None = None
    """tokens that a step sees (default: a recipe's own, else those of jaxhpo train)"""
    out: str | None = None
    """PNG file to draw into"""
    json: bool = False
    """print the numbers instead of a drawing"""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)

    def __post_init__(self) -> None:
        for name in ("steps", "tokens_per_step"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 2**31:
                raise UsageError(f"{name}={value}; allowed: 1 to {2**31 - 1}")


def main(argv: Sequence[str]) -> int:
    if not argv or "-h" in argv or "--help" in argv:
        print(about())
        if argv:
            parse(View, ["--help"], "jaxhpo schedule NAME ...")
        return 2
    names, runs, words = split(argv)
    view = parse(View, words, "jaxhpo schedule")
    curves = [named(name, words) for name in names]
    if runs:
        from jaxhpo.study.rates import of_run

        curves += [of_run(run) for run in runs]
    if not curves:
        curves = [curve(view.schedule.kind, view, None)]
    if view.out is not None:
        draw(curves, view.out)
    if view.json:
        from jaxhpo.study.rates import as_json

        print(as_json(curves))
    else:
        show(curves)
        if view.out is not None:
            print(f"\nfigure  {view.out}")
    return 0


def about() -> str:
    """Usage, and every name that may be drawn."""
    width = max(map(len, RECIPES))
    recipes = "\n".join(
        f"  {name:<{width}}  {recipe.source}\n  {'':<{width}}  verified: {recipe.verified}"
        for name, recipe in RECIPES.items()
    )
    return (
        f"{USAGE}\n\n{__doc__}\n\n"
        f"kinds: {', '.join(KINDS)}\n\nrecipes:\n{recipes}\n\n"
        "examples:\n"
        "  jaxhpo schedule cosine wsd:decay_shape=1-sqrt --steps 1000 --schedule.floor 0.1\n"
        "  jaxhpo schedule bloom-176b gpt-3 --out recipes.png\n"
        "  jaxhpo schedule --from runs/pbt-0001 --json"
    )


def split(argv: Sequence[str]) -> tuple[list[str], list[Path], list[str]]:
    """The names, the run directories after `--from`, and the options."""
    words = list(argv)
    names: list[str] = []
    while words and not words[0].startswith("--"):
        names.append(words.pop(0))
    runs: list[Path] = []
    while FROM in words:
        at = words.index(FROM)
        end = next((i for i in range(at + 1, len(words)) if words[i].startswith("--")), len(words))
        if end == at + 1:
            raise UsageError(f"{FROM} has no value; allowed: run directories")
        runs += map(Path, words[at + 1 : end])
        del words[at:end]
    for run in runs:
        if not run.is_dir():
            raise UsageError(f"{FROM} {run}: no such run directory")
    return names, runs, words


def named(name: str, words: Sequence[str]) -> Any:
    """The curve of a kind or a recipe, with its own `:field=value` parts and the options."""
    head, *own = name.split(":")
    inline: list[str] = []
    for part in own:
        key, equals, value = part.partition("=")
        if not equals:
            raise UsageError(f"{name}: {part!r} is no FIELD=VALUE, such as floor=0.1")
        inline += [f"--schedule.{key}", *value.split(",")]
    if head not in KINDS and head not in RECIPES:
        raise UsageError(f"no schedule {head}; {suggest(head, [*KINDS, *RECIPES])}")
    options = [*words, *inline]
    if any(word.partition("=")[0] == "--schedule.kind" for word in options):
        raise UsageError(f"--schedule.kind beside the name {head}; give one of them")
    steps = parse(View, words, "jaxhpo schedule").steps
    recipe = RECIPES.get(head)
    schedule = ScheduleConfig(kind=head)  # ty: ignore[invalid-argument-type]
    if recipe is not None:
        schedule = recipe.schedule if steps is None else recipe.scaled(steps)
    view = parse(View, options, "jaxhpo schedule", View(schedule=schedule))
    return curve(name, view, None if recipe is None or steps else recipe)


def curve(name: str, view: View, recipe: Any) -> Any:
    from jaxhpo.schedules import Batches
    from jaxhpo.study.rates import of_config, of_recipe

    if recipe is not None and view.tokens_per_step is None:
        return of_recipe(name, recipe, view.schedule)
    batch = view.tokens_per_step or TrainRun().tokens_per_step
    return of_config(name, view.schedule, view.steps or STEPS, Batches(((0, batch),)))


def draw(curves: Sequence[Any], out: str) -> None:
    """Writes the figure. Raises UsageError where it can't be written."""
    from jaxhpo.report.rates import figure

    path = Path(out)
    if path.suffix != ".png":
        raise UsageError(f"--out {out}; allowed: a file that ends in .png")
    try:
        path.write_bytes(figure(lines(curves)))
    except OSError as error:
        raise UsageError(f"--out {out}: {error.strerror or error}") from error


def show(curves: Sequence[Any]) -> None:
    """Prints the drawing, as wide as the terminal up to a hundred columns."""
    from rich.console import Console
    from rich.text import Text

    from jaxhpo.report import rates, terminal

    console = Console(highlight=False)
    width = min(console.width, 100)
    unicode = "utf" in (sys.stdout.encoding or "").lower()
    drawn = lines(curves)
    batch = rates.tokens_per_step(drawn)
    rows = terminal.drawing(drawn, "steps", width, unicode=unicode, below=batch)
    if batch is None:
        rows += [[], *terminal.drawing(drawn, "tokens", width, unicode=unicode)]
    for row in [*rows, [], *terminal.legend(drawn, width, unicode)]:
        line = Text.assemble(*((piece.text, piece.colour or "") for piece in row))
        console.print(line, no_wrap=True, crop=True)


def lines(curves: Sequence[Any]) -> list[Any]:
    """The curves as the report draws them."""
    from jaxhpo.report.rates import Line

    return [Line(each.name, each.steps, each.tokens, each.rates) for each in curves]
