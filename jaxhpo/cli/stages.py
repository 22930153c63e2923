"""`jaxhpo stages FILE`: train in stages, each a fork of the last, from one file."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jaxhpo.config.fields import suggest
from jaxhpo.errors import UsageError
from jaxhpo.population.config import ExecutionConfig, prepare_backend

if TYPE_CHECKING:
    from jaxhpo.study import Outcome

USAGE = "usage: jaxhpo stages FILE.toml [--out DIR] [--resume auto]"

HELP = """
  FILE      options of train on top, then a table for each stage:

              [schedule]                 # holds from the first stage on
              kind = "constant"

              [[stages]]
              name = "pretrain"
              steps = 2000

              [[stages]]                 # all kept; the data position only if the data is
              name = "long"
              steps = 400
              model.context = 256
              data.batch_size = 2

              [[stages]]                 # a preset of jaxhpo fork: continue (default), decay,
              name = "anneal"            # recycle or finetune
              preset = "decay"
              steps = 200
              data.source = "textbooks/"

            steps are the stage's own; what a stage does not set it has from the one before
  --out     directory with a run directory for each stage (default: a new one in runs/)
  --resume  auto: carry on what is there; jaxhpo resume DIR does the same"""

_OPTIONS = {"--out": None, "--resume": ("never", "auto")}


def stages(
    file: Path | str, out: Path | str | None = None, again: str = "never"
) -> "tuple[Outcome, ...]":
    """Trains the stages of a TOML file one after another; `again="auto"` carries them on in `out`.

    Raises UsageError before anything runs where the file is not understood, else what `train` does.
    """
    prepare_backend(ExecutionConfig(), 1)
    from jaxhpo.study.stages import run_stages

    outcomes = run_stages(Path(file), None if out is None else str(out), again)
    return reported(outcomes)


def reported(outcomes: "tuple[Outcome, ...]") -> "tuple[Outcome, ...]":
    """The same outcomes, once the page of each stage is written."""
    from jaxhpo.cli.launch import reported as with_page

    return tuple(with_page(outcome) for outcome in outcomes)


def main(argv: Sequence[str]) -> int:
    if "-h" in argv or "--help" in argv:
        print(f"{USAGE}\n\n{__doc__}\n{HELP}")
        return 0
    files, given = _arguments(argv)
    if len(files) != 1:
        raise UsageError(f"{'no file' if not files else 'more than one file'}; {USAGE}")
    return show(stages(files[0], given.get("--out"), given.get("--resume", "never")))


def show(outcomes: "tuple[Outcome, ...]") -> int:
    """Prints what each stage came to; the exit status."""
    width = max(len(outcome.directory.name) for outcome in outcomes)
    for outcome in outcomes:
        best = outcome.best
        numbers = f"loss {best['loss']:.4f}  {best['bits_per_byte']:.4f} bits/byte"
        print(f"{outcome.directory.name:<{width}}  step {best['step']:>8,}  {numbers}")
    runs = " ".join(str(outcome.directory) for outcome in outcomes)
    print(f"\nstages  {outcomes[-1].directory.parent}\ntree    jaxhpo lineage {runs}")
    return 0


def _arguments(argv: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    files: list[str] = []
    given: dict[str, str] = {}
    words = iter(argv)
    for word in words:
        if not word.startswith("-"):
            files.append(word)
            continue
        key, equals, text = word.partition("=")
        if key not in _OPTIONS:
            raise UsageError(f"unknown option {key}; {suggest(key, _OPTIONS)}")
        value = text if equals else next(words, "")
        allowed = _OPTIONS[key]
        if not value or (allowed and value not in allowed):
            raise UsageError(f"{key} {value}; allowed: {', '.join(allowed or ('a folder',))}")
        given[key] = value
    return files, given
