"""What makes a checkpoint trustworthy: a list of its files with their digests, written last.

Orbax does not checksum array data: a changed bit restores as a wrong number, without an error.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxhpo.errors import UsageError
from jaxhpo.record.paths import fsync_directory, safe_join

MANIFEST = "MANIFEST.json"
_FORMAT = 1
_MAX_BYTES = 64 * 2**20


class Damaged(Exception):
    """The checkpoint is not what was written; the message says how."""


def seal(directory: Path, content: Mapping[str, Any]) -> tuple[int, str]:
    """Write the manifest of all files in `directory`, and flush everything to the disk.

    `content` is kept in the manifest. Returns the bytes of all files and the manifest's digest.
    """
    files = {
        str(path.relative_to(directory)): _digest(path, flush=True) for path in _files(directory)
    }
    manifest: dict[str, Any] = {"format": _FORMAT, **content, "files": files}
    manifest["digest"] = _canonical_digest(manifest)
    path = directory / MANIFEST
    with open(path, "x", encoding="utf-8") as file:
        json.dump(manifest, file, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())
    for folder, _, _ in os.walk(directory, topdown=False):
        fsync_directory(Path(folder))
    return sum(size for size, _ in files.values()) + path.stat().st_size, manifest["digest"]


def verify(directory: Path) -> dict[str, Any]:
    """The manifest of a checkpoint whose every file is as it was written.

    Raises `Damaged`, and `UsageError` if a newer version wrote it.
    """
    manifest = read(directory)
    for name, (size, digest) in manifest["files"].items():
        path = safe_join(directory, name)
        if not path.is_file():
            raise Damaged(f"{name} is missing")
        found, found_digest = _digest(path)
        if found != size:
            raise Damaged(f"{name} has {found} bytes where {size} were written")
        if found_digest != digest:
            raise Damaged(f"the content of {name} has changed")
    return manifest


def read(directory: Path) -> dict[str, Any]:
    """The manifest, itself as it was written; no other file is looked at. Raises `Damaged`."""
    path = directory / MANIFEST
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            text = file.read(_MAX_BYTES)
        manifest = json.loads(text)
        digest = manifest.pop("digest")
        if _canonical_digest(manifest) != digest:
            raise Damaged(f"the content of {MANIFEST} has changed")
        if manifest["format"] != _FORMAT:
            raise UsageError(
                f"{directory} has format {manifest['format']}, this version of jaxhpo reads "
                f"{_FORMAT}; use the version that wrote it"
            )
    except FileNotFoundError:
        raise Damaged(f"{MANIFEST} is missing") from None
    except OSError as error:
        raise Damaged(f"{MANIFEST} can't be read: {error.strerror}") from None
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise Damaged(f"{MANIFEST} is not readable") from None
    return {**manifest, "digest": digest}


def _files(directory: Path) -> list[Path]:
    return sorted(Path(folder, name) for folder, _, names in os.walk(directory) for name in names)


def _digest(path: Path, *, flush: bool = False) -> tuple[int, str]:
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            if flush:
                os.fsync(file.fileno())
            return file.tell(), digest
    except OSError as error:
        if flush:
            raise
        raise Damaged(f"{path.name} can't be read: {error.strerror}") from None


def _canonical_digest(manifest: Mapping[str, Any]) -> str:
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
