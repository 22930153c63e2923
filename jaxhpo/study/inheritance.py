"""The config that a fork begins with: its parent's. Never imports jax."""

from dataclasses import fields, replace
from pathlib import Path

from jaxhpo.config import from_dict
from jaxhpo.config.kinds import KINDS
from jaxhpo.config.run import ForkRun, Run
from jaxhpo.errors import UsageError
from jaxhpo.record.directory import RunDirectory
from jaxhpo.record.history import History, history

_NOT_INHERITED = ("out", "resume", "space")


def inherit(path: Path | str) -> ForkRun:
    """A fork of the run in `path` with its parent's options. Raises UsageError if it is no run."""
    run = RunDirectory.open(path)
    past = history(run.path)
    config = config_of(past)
    shared = {
        field.name: getattr(config, field.name)
        for field in fields(Run)
        if field.name not in _NOT_INHERITED
    }
    checkpoint = replace(config.checkpoint, keep_steps=())
    steps = past.fork["total_steps"] if past.fork else config.steps
    return ForkRun(**{**shared, "checkpoint": checkpoint, "steps": steps}, run=str(path))


def config_of(past: History) -> Run:
    """The config that a run was started with."""
    if past.start is None:
        raise UsageError(f"{past.path.parent} has an empty log: nothing was ever run there")
    return from_dict(KINDS[past.start["command"]], past.start["config"])
