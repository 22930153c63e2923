"""Checkpoints of a run of several processes: each writes its part, the first makes them count."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

from jaxhpo.record import arrays as arrays_
from jaxhpo.record.checkpoints import CheckpointError, Finish, Store
from jaxhpo.record.config import CheckpointConfig
from jaxhpo.record.directory import RunDirectory
from jaxhpo.record.stored import Found

T = TypeVar("T")


class Processes(Protocol):
    """What a store must know of the processes: who is first, and what the first one says."""

    patience: int

    @property
    def first(self) -> bool: ...

    def from_first(self, ask: Callable[[], T], what: str = ...) -> T: ...


class StoreTogether(Store):
    """A store of which every process has one, and calls the same methods in the same order.

    The folder is on a disk that all of them share. The first process has the run's lock; it decides
    what is saved, verified and deleted, seals what all have written and tells of it.
    """

    def __init__(
        self, run: RunDirectory, config: CheckpointConfig, processes: Processes, **told: Any
    ) -> None:
        super().__init__(run, config, **told)
        self._processes = processes

    def save(
        self, index: int, state: Any, metadata: dict[str, Any] | None = None, *, wait: bool = False
    ) -> bool:
        """As `Store.save`, on all processes alike: the first one decides."""
        size = arrays_.bytes_of(state)
        draft, refusal = self._processes.from_first(
            lambda: self._prepared(index, size, wait), "a checkpoint"
        )
        if draft is None:
            if refusal is not None:
                raise CheckpointError(refusal)
            return False
        self._join()
        finish = arrays_.write_together(Path(draft), state, self._processes.patience)
        tree, metadata = arrays_.describe(state), metadata or {}

        def finished() -> tuple[arrays_.Tree, dict[str, list[str]]]:
            finish()
            groups = metadata.get("groups", ("",)) if self._processes.first else ()
            return tree, arrays_.stored_populations(Path(draft), tree, groups)

        self._start(index, size, metadata, finished)
        return True

    def wait(self) -> None:
        """Until all parts are on the disk and the first process has made them count."""
        self._join()
        self._processes.from_first(super().wait, "that a checkpoint is written")

    def close(self) -> None:
        """`wait`, for this process alone: it is on its way out, whatever the others do."""
        super().wait()

    def newest(self) -> Found | None:
        def ask() -> list[Any] | None:
            found = super(StoreTogether, self).newest()
            return None if found is None else [found.index, found.metadata, found.skipped]

        told = self._processes.from_first(ask, "the newest checkpoint")
        return None if told is None else Found(told[0], told[1], tuple(told[2]))

    def discard_after(self, index: int) -> None:
        if self._processes.first:
            super().discard_after(index)

    def _prepared(self, index: int, size: int, wait: bool) -> tuple[str | None, str | None]:
        """The folder to write into, made; or none, and why where it is an error."""
        self._need_lock()
        if wait:
            self._join()
        if self.busy:
            self._note(f"checkpoint {index} skipped: checkpoint {self._saving} is being written")
            return None, None
        self._join()
        try:
            self._raise_error()
            if self._shelf.place(index).exists():
                return None, None
            self._check_space(index, size)
        except CheckpointError as error:
            return None, str(error)
        draft = self._shelf.draft(index)
        try:
            draft.mkdir(mode=0o700)
        except OSError as error:
            return None, str(self._explained(index, size, error))
        return str(draft), None

    def _write(self, index: int, needed: int, metadata: dict[str, Any], finish: Finish) -> None:
        if self._processes.first:
            super()._write(index, needed, metadata, finish)
            return
        try:
            finish()
        except Exception as error:
            self._note(f"checkpoint {index}: {error}")  # the first process knows, and decides
