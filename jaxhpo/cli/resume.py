"""`jaxhpo resume RUN`: carry on a run from its last committed checkpoint."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jaxhpo.cli.launch import reported, show
from jaxhpo.cli.positional import run_directory

STAGES = "stages.toml"

if TYPE_CHECKING:
    from jaxhpo.study import Outcome


def resume(run: Path | str) -> "Outcome":
    """Carries on a run that was stopped or killed; it ends as if it had never been.

    Raises UsageError where `run` is no run directory or is in use, else what `pbt` raises.
    """
    from jaxhpo.study import resume as carry_on

    return reported(carry_on(Path(run)))


def main(argv: Sequence[str]) -> int:
    path = run_directory(argv, "resume", __doc__ or "")
    if (path / STAGES).exists():
        from jaxhpo.cli import stages
        from jaxhpo.study.stages import resume_stages

        return stages.show(stages.reported(resume_stages(path)))
    return show(resume(path))
