"""Names and paths that stay inside the run directory."""

import os
from pathlib import Path

from jaxhpo.errors import UsageError

_MAX_NAME_BYTES = 200


def safe_join(root: Path, *parts: str) -> Path:
    """A path under `root`, whatever the parts say.

    Raises `UsageError` for an absolute part, `..`, `.`, an empty name, control characters, a
    backslash, a name over 200 bytes, and a symbolic link on the way. Nothing is created.
    """
    if not parts:
        raise UsageError("a file name is missing")
    path = root
    for part in parts:
        for name in str(part).split("/"):
            check_name(name)
            path = path / name
            if path.is_symlink():
                raise UsageError(f"{path} is a symbolic link; allowed: real files and folders")
    return path


def check_name(name: str) -> None:
    """Raises `UsageError` if `name` can't be the name of a file in a run directory."""
    shown = ascii(name)
    if name in ("", ".", ".."):
        raise UsageError(f"{shown} is not a file name")
    if not name.isprintable() or "/" in name or "\\" in name:
        raise UsageError(f"the name {shown} has control characters or separators")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise UsageError(f"the name {shown} is not valid text") from None
    if size > _MAX_NAME_BYTES:
        raise UsageError(f"the name {shown[:40]}... has {size} bytes; allowed: {_MAX_NAME_BYTES}")


def fsync_directory(path: Path) -> None:
    """Make renames and new names in a folder survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
