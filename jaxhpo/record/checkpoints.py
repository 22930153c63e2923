"""Checkpoints: the one owner of everything written under `checkpoints/`.

A checkpoint is a folder named by the report it follows. It is written beside its place, sealed with
a manifest, and renamed into it; it leaves its place by a rename too, so a folder with a number for
a name is whole, whenever the process is killed.
"""

import errno
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from jaxhpo.errors import UsageError
from jaxhpo.record import arrays as arrays_
from jaxhpo.record.config import CheckpointConfig
from jaxhpo.record.directory import RunDirectory
from jaxhpo.record.keeping import kept
from jaxhpo.record.manifest import seal
from jaxhpo.record.stored import CheckpointError as CheckpointError
from jaxhpo.record.stored import Found as Found
from jaxhpo.record.stored import Restored as Restored
from jaxhpo.record.stored import Stored

_FULL = ("No space left", "RESOURCE_EXHAUSTED", "Disk quota exceeded", "File too large")
_SPARE = 1.2

OnCommit = Callable[[int, int, float, str], None]

Finish = Callable[[], tuple[arrays_.Tree, dict[str, list[str]]]]
"""Writes what a save has a copy of; gives its leaves, and by population the members' digests."""


class Store(Stored):
    """Saves states in the background and finds the newest one that is as it was written.

    >>> with run.lock(), Store(run, on_commit=log_checkpoint) as store:      # doctest: +SKIP
    ...     restored = store.latest(abstract_state)
    ...     store.save(7, state, {"step": 400})       # returns once the state is on the host
    ...     state = train(state)                      # donates the state that is being saved

    Writing needs the run's lock; without it a store can only read. `root` is another folder of
    checkpoints to read. `on_commit(index, bytes,
    seconds, digest)` and `note(text)` may be called from the background thread.
    """

    def __init__(
        self,
        run: RunDirectory,
        config: CheckpointConfig | None = None,
        *,
        root: Path | None = None,
        on_commit: OnCommit = lambda index, size, seconds, digest: None,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        super().__init__(run, root)
        self.pinned: set[int] = set()
        """indices that are kept whatever the keep policy says: pin before reading for a fork"""
        self._policy = config or CheckpointConfig()
        self._on_commit = on_commit
        self._note = note
        self._thread: threading.Thread | None = None
        self._saving: int | None = None
        self._error: CheckpointError | None = None
        if run.locked and root is None:
            self._shelf.open_for_writing()

    def save(
        self, index: int, state: Any, metadata: dict[str, Any] | None = None, *, wait: bool = False
    ) -> bool:
        """Copy the state to the host and write it in the background; True if a save was started.

        While another save is running it is skipped (False, and a note) or, with `wait`, waited for.
        A committed index is not written again (False). Raises `CheckpointError` for an
        earlier save that failed, or too little space for this one; training may go on after it.
        """
        self._need_lock()
        if wait:
            self._join()
        if self.busy:
            self._note(f"checkpoint {index} skipped: checkpoint {self._saving} is being written")
            return False
        self._join()
        self._raise_error()
        if self._shelf.place(index).exists():
            return False
        size = arrays_.bytes_of(state)
        self._check_space(index, size)
        metadata = metadata or {}
        self._start(index, size, metadata, self._copied(index, state, metadata))
        return True

    def _copied(self, index: int, state: Any, metadata: dict[str, Any]) -> Finish:
        copied = arrays_.host_copy(state)
        draft = self._shelf.draft(index)

        def finish() -> tuple[arrays_.Tree, dict[str, list[str]]]:
            draft.mkdir(mode=0o700)
            arrays_.write(draft, copied)
            digests = arrays_.populations(copied, metadata.get("groups", ("",)))
            return arrays_.describe(copied), digests

        return finish

    def _start(self, index: int, size: int, metadata: dict[str, Any], finish: Finish) -> None:
        self._saving = index
        self._thread = threading.Thread(
            target=self._write, args=(index, size, metadata, finish), name=f"checkpoint-{index}"
        )
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether a save is being written."""
        return self._thread is not None and self._thread.is_alive()

    def wait(self) -> None:
        """Until the running save is committed. Raises `CheckpointError` if it failed."""
        self._join()
        self._raise_error()

    def close(self) -> None:
        """`wait`; call it on every way out: a process that ends without may lose the last save."""
        self.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.close()
        except CheckpointError as error:
            if kind is None:
                raise
            self._note(str(error))  # the exception on its way out says what mattered first

    def discard_after(self, index: int) -> None:
        """Delete the checkpoints that follow `index`: a run that goes back there writes its own."""
        self._need_lock()
        self._join()
        self._about.clear()
        self._shelf.delete((later for later in self.indices() if later > index), pinned=True)

    def _write(self, index: int, needed: int, metadata: dict[str, Any], finish: Finish) -> None:
        draft = self._shelf.draft(index)
        started = time.monotonic()
        try:
            tree, digests = finish()
            content = {"index": index, "tree": tree, "members": digests, "metadata": metadata}
            size, digest = seal(draft, content)
            self._shelf.commit(index)
            self._on_commit(index, size, time.monotonic() - started, digest)
            there = self.contents()
            stay = kept(there, self._policy.keep_last, self._policy.keep_best, self.pinned)
            self._shelf.delete(old for old in there if old not in stay)
        except BaseException as error:
            shutil.rmtree(draft, ignore_errors=True)
            self._error = self._explained(index, needed, error)

    def _explained(self, index: int, needed: int, error: BaseException) -> CheckpointError:
        if isinstance(error, UsageError):
            return CheckpointError(str(error))
        full = isinstance(error, OSError) and error.errno in (
            errno.ENOSPC,
            errno.EDQUOT,
            errno.EFBIG,
        )
        if full or any(sign in str(error) for sign in _FULL):
            return self._no_space(index, needed)
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        return CheckpointError(f"checkpoint {index} in {self.root} was not written: {reason[:300]}")

    def _check_space(self, index: int, needed: int) -> None:
        if shutil.disk_usage(self.root).free < _SPARE * needed:
            raise self._no_space(index, needed)

    def _no_space(self, index: int, needed: int) -> CheckpointError:
        free = shutil.disk_usage(self.root).free
        return CheckpointError(
            f"the disk is full: checkpoint {index} in {self.root} needs {round(_SPARE * needed)} "
            f"bytes, {free} are free; older checkpoints are intact, make room for the next"
        )

    def _need_lock(self) -> None:
        if not self._run.locked:
            raise ValueError(
                f"{self._run.path} is not locked by this process: a store only reads then"
            )

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            self._saving = None

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error
