"""`jaxhpo average RUN`: evaluate the average of a run's checkpoints."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxhpo.cli.fork import with_commas
from jaxhpo.cli.options import parse
from jaxhpo.cli.positional import existing
from jaxhpo.config.averages import AverageConfig
from jaxhpo.errors import UsageError
from jaxhpo.population.config import prepare_backend

if TYPE_CHECKING:
    from jaxhpo.study.averages import Averaged

USAGE = "jaxhpo average RUN --at STEP,STEP,..."


def average(run: Path | str, config: AverageConfig | None = None, **options: Any) -> "Averaged":
    """The average of a run's checkpoints; `options` are fields of AverageConfig.

    Raises UsageError for a checkpoint that was not kept, naming those that were.
    """
    config = replace(AverageConfig() if config is None else config, **options)
    prepare_backend(config.execution, len(config.at) + 1)
    from jaxhpo.study.averages import evaluate_average

    return evaluate_average(run, config)


def main(argv: Sequence[str]) -> int:
    if not argv or argv[0].startswith("-"):
        if "-h" in argv or "--help" in argv:
            parse(AverageConfig, ["--help"], USAGE)
        raise UsageError(f"no run directory; usage: {USAGE}")
    path = existing(argv[0])
    found = average(path, parse(AverageConfig, with_commas(argv[1:]), USAGE))
    print(f"{'step':>12}  {'weight':>7}  held-out loss")
    for step, weight, loss in zip(found.steps, found.weights, found.losses, strict=True):
        print(f"{step:>12}  {weight:>7.3f}  {loss:.4f}")
    print(f"{'average':>12}  {'':>7}  {found.loss:.4f}  {found.bits_per_byte:.4f} bits/byte")
    return 0
