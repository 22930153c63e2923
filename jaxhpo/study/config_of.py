"""The config that a run was started with, read from its log; and what of one may be written."""

from pathlib import Path
from typing import TypeVar

from jaxhpo.config import from_dict, to_dict
from jaxhpo.config.kinds import KINDS
from jaxhpo.config.run import Run
from jaxhpo.errors import UsageError
from jaxhpo.record.directory import RunDirectory
from jaxhpo.record.history import History, history
from jaxhpo.record.redaction import redact

C = TypeVar("C")


def config_of(path: Path | str, past: History | None = None) -> Run:
    """The resolved config of a run. Raises UsageError where `path` is no run directory."""
    past = history(RunDirectory.open(path).log) if past is None else past
    if past.start is None:
        raise UsageError(f"{path} has an empty log; remove it and start again")
    return from_dict(KINDS[past.start["command"]], past.start["config"])


def without_secrets(config: C) -> C:
    """A config as it may be written down: what passwords are for is named, and they are not in it.

    A run that is resumed takes them from its own command line, or from where a driver looks for
    them itself (PGPASSWORD, ~/.pgpass).
    """
    return from_dict(type(config), redact(to_dict(config)))
