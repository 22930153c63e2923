"""`jaxhpo resume RUN`: carry on a run from its last committed checkpoint.

The processes of a run of several each say it; --distributed.NAME VALUE as for the run itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from jaxhpo.cli.launch import reported, show
from jaxhpo.cli.options import parse
from jaxhpo.cli.positional import run_directory
from jaxhpo.errors import UsageError
from jaxhpo.population.config import DistributedConfig

STAGES = "stages.toml"

if TYPE_CHECKING:
    from jaxhpo.study import Outcome


@dataclass(frozen=True)
class Resuming:
    """Carry on a run: all that may be said anew is how its processes meet."""

    distributed: DistributedConfig = field(default_factory=DistributedConfig)


def resume(run: Path | str, distributed: DistributedConfig | None = None) -> "Outcome":
    """Carries on a run that was stopped or killed; it ends as if it had never been.

    Raises UsageError where `run` is no run directory or is in use, else what `pbt` raises.
    """
    from jaxhpo.study import resume as carry_on

    return reported(carry_on(Path(run), distributed=distributed))


def main(argv: Sequence[str]) -> int:
    options = argv[1:] if argv[1:] and argv[1].startswith("--distributed.") else ()
    path = run_directory(argv[: len(argv) - len(options)], "resume", __doc__ or "")
    distributed = parse(Resuming, options, "jaxhpo resume RUN").distributed if options else None
    if (path / STAGES).exists():
        if distributed is not None:
            raise UsageError("stages run in one process; leave --distributed out")
        from jaxhpo.cli import stages
        from jaxhpo.study.stages import resume_stages

        return stages.show(stages.reported(resume_stages(path)))
    return show(resume(path, distributed))
