"""Which checkpoints there are: folders under `checkpoints/`, seen on the disk each time."""

import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from jaxhpo.record.paths import fsync_directory
from jaxhpo.record.pins import Claim

_COMMITTED = re.compile(r"\d{8}")
_CORRUPT = re.compile(r"\d{8}\.corrupt(-\d+)?")
_LEFTOVER = re.compile(r"(tmp|trash)-\d{8}\.\d+")


class Shelf:
    """A folder of checkpoints. Foreign names and symbolic links are ignored."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def place(self, index: int) -> Path:
        """Where checkpoint `index` lies once it is committed."""
        return self.root / f"{index:08d}"

    def draft(self, index: int) -> Path:
        """Where checkpoint `index` is written."""
        return self.root / f"tmp-{index:08d}.{os.getpid()}"

    def indices(self) -> list[int]:
        """Committed checkpoints, oldest first."""
        return sorted(map(int, self._names(_COMMITTED)))

    def has_corrupt(self) -> bool:
        """Whether any checkpoint was set aside."""
        return bool(self._names(_CORRUPT))

    def commit(self, index: int) -> None:
        """Put the sealed draft in its place."""
        os.rename(self.draft(index), self.place(index))
        fsync_directory(self.root)

    def set_aside(self, index: int) -> None:
        """Rename a damaged checkpoint, so that nobody takes it for a good one; it is kept."""
        target, number = self.place(index).with_suffix(".corrupt"), 1
        while target.exists():
            number += 1
            target = self.place(index).with_suffix(f".corrupt-{number}")
        os.rename(self.place(index), target)

    def delete(self, indices: Iterable[int], *, pinned: bool = False) -> None:
        """Delete checkpoints by a rename first: a half-deleted one is never seen.

        One that a reader has pinned is left for the next time, unless `pinned` ones go too.
        """
        for index in indices:
            with Claim(self.place(index)) as claim:
                if not (claim.held or pinned):
                    continue
                trash = self.root / f"trash-{index:08d}.{os.getpid()}"
                os.rename(self.place(index), trash)
                fsync_directory(self.root)  # or a power cut brings back a half-deleted one
                shutil.rmtree(trash, ignore_errors=True)

    def open_for_writing(self) -> None:
        """Make the folder and remove what a killed writer left; only under the run's lock."""
        self.root.mkdir(mode=0o700, exist_ok=True)
        for name in self._names(_LEFTOVER):
            shutil.rmtree(self.root / name, ignore_errors=True)

    def _names(self, pattern: re.Pattern[str]) -> list[str]:
        try:
            with os.scandir(self.root) as entries:
                return [
                    entry.name
                    for entry in entries
                    if pattern.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
                ]
        except FileNotFoundError:
            return []
