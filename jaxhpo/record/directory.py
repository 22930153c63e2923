"""The run directory: everything that a run leaves behind, owned by one process at a time."""

import os
import re
from pathlib import Path
from typing import Self

from jaxhpo.errors import UsageError
from jaxhpo.record.lock import Lock, Quiet
from jaxhpo.record.paths import check_name, fsync_directory, safe_join

LOG = "events.jsonl"
CONFIG = "config.toml"
CHECKPOINTS = "checkpoints"
PARENTS = "parents"
REPORT = "report"
_LOCK = ".lock"
_PREFIX = re.compile(r"[a-z0-9][a-z0-9._-]{0,47}")


class RunDirectory:
    """A run's folder: `events.jsonl`, `config.toml`, `checkpoints/`, `parents/`, `report/`.

    Where `writes` is false nothing is written: another process of the run does that.
    """

    def __init__(self, path: Path, writes: bool = True) -> None:
        self.path, self.writes = path, writes
        self._lock: Lock | None = None

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        parent: str = "runs",
        prefix: str = "pbt",
    ) -> Self:
        """A new, empty run directory, readable by its owner only.

        Without a path it is the next free `parent/prefix-0001`. Raises `UsageError` if `path`
        exists and is not empty, or can't be made.
        """
        if path is None:
            return cls(_next_free(Path(parent).absolute(), prefix))
        target = Path(path).absolute()
        for name in target.parts[1:]:
            check_name(name)
        try:
            target.mkdir(mode=0o700, parents=True, exist_ok=True)
            if any(target.iterdir()):
                raise UsageError(
                    f"the run directory {path} exists and is not empty; continue it with "
                    f"--resume auto or `jaxhpo resume {path}`, or give another --out"
                )
            target.chmod(0o700)
        except FileExistsError:
            raise UsageError(f"the run directory {path} is a file; give another --out") from None
        except OSError as error:
            raise UsageError(f"can't make the run directory {path}: {error.strerror}") from None
        return cls(target)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """An existing run directory. Raises `UsageError` if `path` is none."""
        target = Path(path).absolute()
        if not target.is_dir():
            raise UsageError(f"{path} is not a run directory: there is no such folder")
        if not (target / LOG).is_file():
            raise UsageError(f"{path} is not a run directory: it has no {LOG}")
        return cls(target)

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def log(self) -> Path:
        return safe_join(self.path, LOG)

    @property
    def checkpoints(self) -> Path:
        return safe_join(self.path, CHECKPOINTS)

    @property
    def parents(self) -> Path:
        """Checkpoints of other runs that this one was forked from."""
        return safe_join(self.path, PARENTS)

    @property
    def report(self) -> Path:
        return safe_join(self.path, REPORT)

    @property
    def locked(self) -> bool:
        """Whether this object holds the lock."""
        return self._lock is not None and self._lock.held

    def lock(self) -> Lock:
        """Make this process the only writer until it ends (or `release`s the lock).

        Raises `UsageError` within a second, naming process and host, if another one holds it.
        """
        if self._lock is None or not self._lock.held:
            self._lock = Lock(self.path / _LOCK)
        return self._lock

    def quiet(self) -> "Quiet":
        """Keeps writers out while this is read, without writing: any number may read.

        Raises `UsageError` naming the process that is writing.
        """
        return Quiet(self.path / _LOCK)

    def write_text(self, name: str, text: str) -> Path:
        """Write a file whole or not at all; `name` may have folders. Returns its path."""
        return self.write_bytes(name, text.encode())

    def write_bytes(self, name: str, content: bytes) -> Path:
        """Write a file whole or not at all; `name` may have folders. Returns its path."""
        target = safe_join(self.path, name)
        if not self.writes:
            return target
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name[:80]}.{os.getpid()}.tmp")
        try:
            _write_whole(temporary, content)
            os.replace(temporary, target)
            fsync_directory(target.parent)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise UsageError(f"can't write {target}: {error.strerror}") from None
        return target


def _write_whole(path: Path, content: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(path, flags, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _next_free(parent: Path, prefix: str) -> Path:
    if not _PREFIX.fullmatch(prefix):
        raise UsageError(f"prefix={prefix!a}; allowed: lower-case letters, digits and . _ -")
    taken = re.compile(re.escape(prefix) + r"-(\d{1,9})")
    try:
        parent.mkdir(parents=True, exist_ok=True)
        matches = (taken.fullmatch(entry.name) for entry in os.scandir(parent))
        number = max((int(match[1]) for match in matches if match), default=0) + 1
        while True:
            path = parent / f"{prefix}-{number:04d}"
            try:
                path.mkdir(mode=0o700)  # atomic: of two processes one gets it, the other goes on
                return path
            except FileExistsError:
                number += 1
    except OSError as error:
        raise UsageError(f"can't make a run directory in {parent}: {error.strerror}") from None
