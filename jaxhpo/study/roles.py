"""What each process of a run does for it: the first writes, all make sure that they do the same."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import jax

from jaxhpo.config import class_of, flatten
from jaxhpo.config.run import FunctionRun, Run
from jaxhpo.errors import UsageError
from jaxhpo.population.config import DistributedConfig
from jaxhpo.record.directory import RunDirectory
from jaxhpo.record.log import EventLog, NoLog
from jaxhpo.study.compile_group import label
from jaxhpo.study.hosts import Hosts
from jaxhpo.study.setup import Setup
from jaxhpo.study.watchdog import Watchdog

LIBRARIES = ("jaxhpo", "jax", "jaxlib", "numpy", "optuna")

R = TypeVar("R", Run, FunctionRun)


def settled(config: R, hosts: Hosts) -> R:
    """The config without what says how processes meet: it is no part of the run.

    Raises UsageError where processes were given other options, or have other versions.
    """
    plain = replace(config, distributed=DistributedConfig())
    if not hosts.several:
        return plain
    asked = {
        name: str(value)
        for name, value in flatten(config).items()
        if class_of(name) == "semantic" or name.startswith("execution.")
    }
    versions = {name: version(name) for name in LIBRARIES}
    hosts.same("the config", {"command": config.command, **asked, **versions})
    return plain


def check_same(setup: Setup, hosts: Hosts) -> None:
    """Raises UsageError where data or programs differ, or a process has no part in the mesh."""
    groups = setup.groups.opened.items()
    shapes = {
        label(statics): [(e.size, e.shards, e.chunk) for e in group.engines]
        for statics, group in groups
    }
    found = {
        "fingerprints": dict(setup.fingerprints),
        "parameters": setup.parameters,
        "device_kind": jax.devices()[0].device_kind,
        "size, shards and execution.chunk of populations": shapes,
    }
    hosts.same("the set-up", found)
    for _, group in groups:
        mesh = group.engines[0].mesh
        having = {device.process_index for device in mesh.devices.flat}
        if len(having) < hosts.count:
            raise hosts.everyones(
                UsageError(
                    f"the run uses {mesh.size} devices of {len(having)} processes, and there are "
                    f"{hosts.count}; allowed: a device of each at least, by more members, "
                    "execution.devices, or fewer processes"
                )
            )


def created(config: Run | FunctionRun, hosts: Hosts) -> RunDirectory:
    """A new run directory, made by the first process and seen by all."""
    create = lambda: str(RunDirectory.create(config.out, prefix=config.command).path)
    path = Path(hosts.from_first(create, "the run directory"))
    return hosts.together(lambda: _seen(path, hosts), "that the run directory is there")


def opened(path: Path, hosts: Hosts) -> RunDirectory:
    """An existing run directory, as this process may use it. Raises UsageError."""
    return _seen(RunDirectory.open(path).path, hosts)


@contextmanager
def locked(run: RunDirectory, hosts: Hosts) -> Generator[None]:
    """The run's lock, which the first process has for all. Raises UsageError where it is taken."""
    hosts.from_first(lambda: run.lock() and None, "the lock of the run directory")
    try:
        yield
    finally:
        if hosts.first:
            run.lock().release()


@contextmanager
def logged(run: RunDirectory, hosts: Hosts) -> Generator[EventLog]:
    """The run's log, which the first process writes for all."""
    with EventLog(run.log) if hosts.first else NoLog(run.log) as log:
        yield log


def watch(run: RunDirectory, hosts: Hosts) -> Watchdog:
    """Says where a slow segment hangs; one of several processes then ends, and with it the run."""
    return Watchdog(run.path, hosts.index, hosts.patience if hosts.several else None)


def _seen(path: Path, hosts: Hosts) -> RunDirectory:
    if not path.is_dir():
        raise UsageError(
            f"the run directory {path} is not there on {_where(hosts)}; it must be on a disk that "
            "all processes share"
        )
    return RunDirectory(path, writes=hosts.first)


def _where(hosts: Hosts) -> Any:
    import socket

    return f"the host of process {hosts.index} ({socket.gethostname()})"
