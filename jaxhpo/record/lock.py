"""One writer per run directory."""

import fcntl
import os
import socket
import time
from pathlib import Path
from typing import Self

from jaxhpo.errors import UsageError

_WAIT_SECONDS = 0.4


class Held:
    """What an open descriptor holds until it is closed."""

    _descriptor: int | None = None

    @property
    def held(self) -> bool:
        return self._descriptor is not None

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Lock(Held):
    """One process per run directory; the kernel frees it when the process dies, however it dies."""

    def __init__(self, path: Path) -> None:
        self._descriptor = _acquire(path)
        # a forked child shares the lock: its copy of the descriptor must not outlive the parent
        os.register_at_fork(after_in_child=super().release)

    def release(self) -> None:
        if self._descriptor is not None:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        super().release()


class Quiet(Held):
    """No writer in a run directory while this is held; writes nothing there itself."""

    def __init__(self, path: Path) -> None:
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            fcntl.flock(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            pass  # nobody has ever written
        except BlockingIOError:
            holder = _holder(self._descriptor or 0)
            self.release()
            raise UsageError(
                f"{path.parent} is running ({holder}); wait for it or stop it first"
            ) from None
        except OSError:
            pass  # a disk without locks has no writer of ours

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _holder(descriptor: int) -> str:
    text = os.pread(descriptor, 300, 0).decode(errors="replace")
    return "".join(letter for letter in text if letter.isprintable()) or "another process"


def _acquire(path: Path) -> int:
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        raise UsageError(f"can't lock {path}: {error.strerror}") from None
    deadline = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > deadline:
                holder = _holder(descriptor)
                os.close(descriptor)
                raise UsageError(
                    f"the run directory {path.parent} is in use by {holder}; wait for it or stop it"
                ) from None
            time.sleep(0.05)
        except OSError as error:
            os.close(descriptor)
            raise UsageError(
                f"can't lock {path}: {error.strerror}; choose a run directory on a disk with locks"
            ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    return descriptor
