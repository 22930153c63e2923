"""The config that a run was started with, read from its log."""

from pathlib import Path

from jaxhpo.config import from_dict
from jaxhpo.config.kinds import KINDS
from jaxhpo.config.run import Run
from jaxhpo.errors import UsageError
from jaxhpo.record.directory import RunDirectory
from jaxhpo.record.history import History, history


def config_of(path: Path | str, past: History | None = None) -> Run:
    """The resolved config of a run. Raises UsageError where `path` is no run directory."""
    past = history(RunDirectory.open(path).log) if past is None else past
    if past.start is None:
        raise UsageError(f"{path} has an empty log; remove it and start again")
    return from_dict(KINDS[past.start["command"]], past.start["config"])
