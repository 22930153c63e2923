"""A checkpoint handed to another run: the same files where the disk allows it, else a copy."""

import errno
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from jaxhpo.errors import UsageError
from jaxhpo.record.manifest import MANIFEST, Damaged, verify
from jaxhpo.record.paths import fsync_directory
from jaxhpo.record.pins import Gone, Pin
from jaxhpo.record.shelf import Shelf

_NO_LINKS = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EACCES)


@dataclass(frozen=True)
class Shared:
    """What a hand-over took: files that are one with the source's, and bytes that were copied."""

    linked: int
    copied: int
    bytes_copied: int

    def __add__(self, other: "Shared") -> "Shared":
        return Shared(
            self.linked + other.linked,
            self.copied + other.copied,
            self.bytes_copied + other.bytes_copied,
        )


def share(source: Path, target: Path) -> Shared:
    """Puts the checkpoint at `source` at `target` too, verified, whole or not at all.

    Files are hard links: they cost nothing, and stay when the source is deleted. Another file
    system gets copies. The source is pinned meanwhile. Raises `UsageError` where it is damaged or
    gone, or the disk is full.
    """
    draft = Shelf(target.parent).draft(int(target.name))
    try:
        with Pin(source):
            files = sorted(verify(source)["files"])
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            shared = _put(source, draft, [*files, MANIFEST])
        for folder, _, _ in os.walk(draft, topdown=False):
            fsync_directory(Path(folder))
        os.rename(draft, target)
        fsync_directory(target.parent)
    except (Damaged, Gone) as reason:
        raise UsageError(f"can't fork from {source}: {reason}") from None
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        why = "the disk is full" if full else error.strerror
        raise UsageError(f"can't copy {source} to {target}: {why}; nothing was left") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return shared


def _put(source: Path, draft: Path, names: list[str]) -> Shared:
    linked = copied = size = 0
    draft.mkdir(mode=0o700)
    for name in names:
        (draft / name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            os.link(source / name, draft / name, follow_symlinks=False)
            linked += 1
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            shutil.copyfile(source / name, draft / name, follow_symlinks=False)
            with open(draft / name, "rb") as file:
                os.fsync(file.fileno())
            copied += 1
            size += (draft / name).stat().st_size
    return Shared(linked, copied, size)
