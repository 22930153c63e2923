"""Checkpoints as they are read: verified, whole or one member of one, on any mesh."""

import contextlib
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from jaxhpo.errors import UsageError
from jaxhpo.record import arrays as arrays_
from jaxhpo.record.directory import RunDirectory
from jaxhpo.record.manifest import Damaged, read, verify
from jaxhpo.record.pins import Gone, Pin
from jaxhpo.record.shelf import Shelf

T = TypeVar("T")


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


@dataclass(frozen=True)
class Found:
    """A verified checkpoint that is not read yet; the rest is as in `Restored`."""

    index: int
    metadata: dict[str, Any]
    skipped: tuple[str, ...] = ()


class Stored:
    """The checkpoints of a run, or those in another folder `root`."""

    def __init__(self, run: RunDirectory, root: Path | None = None) -> None:
        self.root = run.checkpoints if root is None else root
        self._shelf = Shelf(self.root)
        self._run = run
        self._about: dict[int, dict[str, Any]] = {}

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
        return self._newest(
            lambda index, manifest, skipped: self._restore(index, manifest, abstract_state, skipped)
        )

    def newest(self) -> Found | None:
        """What `latest` would restore, verified but not read; for `load`."""
        return self._newest(
            lambda index, manifest, skipped: Found(index, manifest["metadata"], skipped)
        )

    def load(
        self,
        found: Found,
        abstract_state: Any,
        rows: Mapping[str, Sequence[int]] | None = None,
    ) -> Any:
        """The state of a checkpoint that `newest` has found, on the devices of `abstract_state`.

        `rows` are by population ("" the only one) the saved row that each place takes, where they
        are not those of the checkpoint: another mesh has another number and order of places.
        """
        manifest = read(self._shelf.place(found.index))
        return self._restore(found.index, manifest, abstract_state, (), rows).state

    def _newest(self, use: Callable[[int, dict[str, Any], tuple[str, ...]], T]) -> T | None:
        self._join()
        skipped = []
        for index in reversed(self.indices()):
            place = self._shelf.place(index)
            try:
                with Pin(place):
                    return use(index, verify(place), tuple(skipped))
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

    def _restore(
        self,
        index: int,
        manifest: dict[str, Any],
        abstract_state: Any,
        skipped: tuple[str, ...],
        rows: Mapping[str, Sequence[int]] | None = None,
    ) -> Restored:
        path = self._shelf.place(index)
        if callable(abstract_state):
            abstract_state = abstract_state(manifest["metadata"])
        saved = {name: (dtype, tuple(shape)) for name, (dtype, shape) in manifest["tree"].items()}
        if rows is None:
            read_ = lambda: arrays_.read(path, abstract_state)
        else:
            taken = {name: _rows_of(name, rows) for name in saved}
            saved = {n: (dtype, (len(taken[n]), *shape[1:])) for n, (dtype, shape) in saved.items()}
            read_ = lambda: arrays_.read_rows(path, abstract_state, taken)
        arrays_.check_same(path, saved, arrays_.describe(abstract_state))
        state = _readable(path, read_)
        arrays_.check_same(path, saved, arrays_.describe(state))
        return Restored(index, state, manifest["metadata"], manifest["digest"], skipped)

    def _join(self) -> None:
        """Until nothing is being written; a reader writes nothing."""


def _readable(path: Path, read_: Callable[[], Any]) -> Any:
    try:
        return read_()
    except Exception as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise CheckpointError(f"can't read the checkpoint {path}: {reason[:300]}") from error


def _rows_of(leaf: str, rows: Mapping[str, Sequence[int]]) -> Sequence[int]:
    longest = sorted(rows, key=len, reverse=True)  # "" is the name of one that has no other
    return next(rows[name] for name in longest if arrays_.belongs(leaf, name))
