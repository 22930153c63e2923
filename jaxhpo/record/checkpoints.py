"""Checkpoints: the one owner of everything written under `checkpoints/`.

A checkpoint is a folder named by the report it follows. It is written beside its place, sealed with
a manifest, and renamed into it; it leaves its place by a rename too, so a folder with a number for
a name is whole, whenever the process is killed.
"""

import contextlib
import errno
import shutil
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from jaxhpo.errors import UsageError
from jaxhpo.record import arrays as arrays_
from jaxhpo.record.config import CheckpointConfig
from jaxhpo.record.directory import RunDirectory
from jaxhpo.record.keeping import kept
from jaxhpo.record.manifest import Damaged, read, seal, verify
from jaxhpo.record.pins import Gone, Pin
from jaxhpo.record.shelf import Shelf

_FULL = ("No space left", "RESOURCE_EXHAUSTED", "Disk quota exceeded", "File too large")
_SPARE = 1.2

OnCommit = Callable[[int, int, float, str], None]


class CheckpointError(UsageError):
    """A checkpoint could not be written or read; what was committed before is intact."""


@dataclass(frozen=True)
class Restored:
    """A verified checkpoint. `skipped` says which newer ones were not trusted, and why."""

    index: int
    state: Any
    metadata: dict[str, Any]
    digest: str
    skipped: tuple[str, ...] = ()


class Store:
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
        self.root = run.checkpoints if root is None else root
        self._shelf = Shelf(self.root)
        self.pinned: set[int] = set()
        """indices that are kept whatever the keep policy says: pin before reading for a fork"""
        self._run = run
        self._policy = config or CheckpointConfig()
        self._about: dict[int, dict[str, Any]] = {}
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
        self._check_space(index, arrays_.bytes_of(state))
        copied = arrays_.host_copy(state)
        self._saving = index
        self._thread = threading.Thread(
            target=self._write, args=(index, copied, metadata or {}), name=f"checkpoint-{index}"
        )
        self._thread.start()
        return True

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

    def indices(self) -> list[int]:
        """Committed checkpoints on the disk now, oldest first."""
        return self._shelf.indices()

    def contents(self) -> dict[int, dict[str, Any]]:
        """Committed checkpoints with their metadata, oldest first; empty of what can't be read."""
        there = self.indices()
        for index in there:
            if index not in self._about:
                try:
                    self._about[index] = read(self._shelf.place(index))["metadata"]
                except (Damaged, UsageError):
                    self._about[index] = {}
        self._about = {index: self._about[index] for index in there}
        return dict(self._about)

    def latest(self, abstract_state: Any) -> Restored | None:
        """The newest checkpoint that is as it was written, or None if the run never had one.

        `abstract_state` has `jax.ShapeDtypeStruct` leaves with shardings; where the state differs
        from one checkpoint to another, it is a function of their metadata. A damaged checkpoint is
        renamed to `.corrupt` (by the holder of the lock) and the one before it is tried. Raises
        `CheckpointError` if there are checkpoints and none can be trusted: a run never starts again
        from zero by itself; `UsageError` if shapes or dtypes differ from `abstract_state`.
        """
        self._join()
        skipped = []
        for index in reversed(self.indices()):
            place = self._shelf.place(index)
            try:
                with Pin(place):
                    manifest = verify(place)
                    return self._restore(index, manifest, abstract_state, tuple(skipped))
            except Gone as gone:
                skipped.append(str(gone))
            except Damaged as damage:
                skipped.append(f"{place}: {damage}")
                if self._run.locked:
                    self._shelf.set_aside(index)
        if skipped or self._shelf.has_corrupt():
            why = f" ({'; '.join(skipped)})" if skipped else ""
            raise CheckpointError(
                f"no checkpoint in {self.root} can be trusted{why}; restore one from a copy, or "
                "start a new run"
            )
        return None

    def restore(self, index: int, abstract_state: Any) -> Restored:
        """A given checkpoint. Raises `CheckpointError` naming those there are, or the damage."""
        with self._opened(index) as place:
            return self._restore(index, verify(place), abstract_state, ())

    def restore_member(
        self, index: int, member: int, abstract_member: Any, population: str = ""
    ) -> Any:
        """One member of a saved population as host arrays; the others' bytes are not read.

        `member` is its place, `abstract_member` has leaves without [P]; `population` names one of
        several. Raises `CheckpointError` naming the checkpoints there are, or the damage;
        `UsageError` if shapes or dtypes differ.
        """
        with self._opened(index) as place:
            manifest = read(place)
            saved = {
                name: (dtype, tuple(shape))
                for name, (dtype, shape) in manifest["tree"].items()
                if arrays_.belongs(name, population)
            }
            prefix = f"{population}." if population else ""
            rows = {n.removeprefix(prefix): (dtype, s[1:]) for n, (dtype, s) in saved.items()}
            arrays_.check_same(place, rows, arrays_.describe(abstract_member))
            digests = manifest.get("members", {}).get(population, ())
            if not 0 <= member < len(digests):
                raise CheckpointError(f"{place} has no member {member}; members: {len(digests)}")
            found = _readable(place, lambda: arrays_.read_member(place, saved, member))
            if arrays_.member_digest(found) != digests[member]:
                raise Damaged(f"the content of member {member} has changed")
        named = {name.removeprefix(prefix): array for name, array in found.items()}
        return arrays_.as_tree(abstract_member, named)

    @contextlib.contextmanager
    def _opened(self, index: int) -> Generator[Path]:
        """A checkpoint's folder, pinned; damage inside becomes `CheckpointError`."""
        self._join()
        place = self._shelf.place(index)
        try:
            if index not in self.indices():
                there = ", ".join(map(str, self.indices())) or "none"
                raise CheckpointError(f"{self.root} has no checkpoint {index}; there are: {there}")
            with Pin(place):
                yield place
        except Gone as gone:
            raise CheckpointError(str(gone)) from None
        except Damaged as damage:
            raise CheckpointError(f"{place} is damaged: {damage}") from None

    def metadata(self, index: int) -> dict[str, Any]:
        """What was saved beside a checkpoint. Raises `CheckpointError` where it is damaged."""
        try:
            return verify(self._shelf.place(index))["metadata"]
        except Damaged as damage:
            raise CheckpointError(f"{self._shelf.place(index)} is damaged: {damage}") from None

    def discard_after(self, index: int) -> None:
        """Delete the checkpoints that follow `index`: a run that goes back there writes its own."""
        self._need_lock()
        self._join()
        self._about.clear()
        self._shelf.delete((later for later in self.indices() if later > index), pinned=True)

    def _write(self, index: int, copied: dict[str, np.ndarray], metadata: dict[str, Any]) -> None:
        needed = sum(array.nbytes for array in copied.values())
        draft = self._shelf.draft(index)
        started = time.monotonic()
        try:
            draft.mkdir(mode=0o700)
            arrays_.write(draft, copied)
            content = {
                "index": index,
                "tree": arrays_.describe(copied),
                "members": arrays_.populations(copied, metadata.get("groups", ("",))),
                "metadata": metadata,
            }
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

    def _restore(
        self, index: int, manifest: dict[str, Any], abstract_state: Any, skipped: tuple[str, ...]
    ) -> Restored:
        path = self._shelf.place(index)
        if callable(abstract_state):
            abstract_state = abstract_state(manifest["metadata"])
        saved = {name: (dtype, tuple(shape)) for name, (dtype, shape) in manifest["tree"].items()}
        arrays_.check_same(path, saved, arrays_.describe(abstract_state))
        state = _readable(path, lambda: arrays_.read(path, abstract_state))
        arrays_.check_same(path, saved, arrays_.describe(state))
        return Restored(index, state, manifest["metadata"], manifest["digest"], skipped)

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


def _readable(path: Path, read_: Callable[[], Any]) -> Any:
    try:
        return read_()
    except Exception as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise CheckpointError(f"can't read the checkpoint {path}: {reason[:300]}") from error
