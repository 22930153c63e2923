"""Pins: who reads a checkpoint keeps it from being deleted, until it is done or dies."""

import fcntl
import os
from pathlib import Path

from jaxhpo.record.lock import Held


class Gone(Exception):
    """The checkpoint was deleted before it could be pinned."""


class Pin(Held):
    """A shared lock on a checkpoint's folder, held by any number of readers.

    The kernel drops it when its holder dies. On a file system without locks nothing is held.
    """

    def __init__(self, checkpoint: Path) -> None:
        self._descriptor = _locked(checkpoint, fcntl.LOCK_SH)
        if self._descriptor is None:
            raise Gone(f"{checkpoint} was deleted meanwhile")


class Claim(Held):
    """The sole right to a checkpoint's folder, for deleting it; `held` says whether it was free."""

    def __init__(self, checkpoint: Path) -> None:
        self._descriptor = _locked(checkpoint, fcntl.LOCK_EX)


def _locked(checkpoint: Path, kind: int) -> int | None:
    """A descriptor that holds the lock, None where it is taken or the folder is gone."""
    try:
        descriptor = os.open(checkpoint, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        return descriptor  # no locks on this disk: the run's own lock still keeps writers apart
    # between open and lock it may have been renamed into the trash
    try:
        same = os.path.samestat(os.stat(checkpoint), os.fstat(descriptor))
    except FileNotFoundError:
        same = False
    if not same:
        os.close(descriptor)
        return None
    return descriptor
