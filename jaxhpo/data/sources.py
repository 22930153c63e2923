"""Where documents come from. A new source is a file and a row of the table."""

import difflib
from collections.abc import Callable, Sequence
from pathlib import Path

from jaxhpo.data import stdlib, synthetic
from jaxhpo.data.documents import Document
from jaxhpo.errors import UsageError

SOURCES: dict[str, Callable[[], Sequence[Document]]] = {
    "stdlib": stdlib.documents,
    "synthetic": synthetic.documents,
}
"""Name -> its documents: at least one, with unique names. Everything else is a path."""


def read_documents(source: str, glob: str) -> Sequence[Document]:
    """The documents of a source, not read yet; raises UsageError where there are none."""
    if source in SOURCES:
        return SOURCES[source]()
    try:
        path = Path(source).expanduser()
        if path.is_dir():
            return _folder(path, glob)
        if path.is_file():
            return [_file(path)]
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"data.source={source}: {reason}") from None
    near = difflib.get_close_matches(source, SOURCES, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise UsageError(
        f"data.source={source} is neither a file nor a folder; allowed: "
        f"{', '.join(SOURCES)}, tfds:NAME, the path of one, or mix(NAME=WEIGHT, ...){hint}"
    )


def _file(path: Path) -> Document:
    if not path.stat().st_size:
        raise UsageError(f"data.source={path} is empty; allowed: a file with text")
    return Document(path.name, path)


def _folder(path: Path, glob: str) -> Sequence[Document]:
    """Non-empty files in a folder, by their path in it."""
    try:
        found = [file for file in path.glob(glob) if file.is_file()]
    except (ValueError, NotImplementedError) as error:
        raise UsageError(f"data.glob={glob} is no pattern: {error}") from None
    relative = {file.relative_to(path): file for file in found}
    shown = {
        name.as_posix(): file
        for name, file in relative.items()
        if not any(part.startswith(".") for part in name.parts)
    }
    if not shown:
        raise UsageError(f"data.source={path} has no file that matches data.glob={glob}")
    texts = [Document(name, file) for name, file in sorted(shown.items()) if file.stat().st_size]
    if not texts:
        raise UsageError(f"data.source={path}: all {len(shown)} files are empty")
    return texts
