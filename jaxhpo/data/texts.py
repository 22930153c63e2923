"""The texts of one part of a corpus, read piece by piece, in this process or in another."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from jaxhpo.data.documents import Document, Part
from jaxhpo.data.records import Records


class Texts(Protocol):
    """Texts with names, in an order that never changes; `size` is about how many bytes."""

    def __len__(self) -> int: ...

    @property
    def size(self) -> int: ...

    def read(self, start: int, stop: int) -> Iterator[tuple[str, bytes]]:
        """Names and texts `start` to `stop`: UTF-8 without NUL, none of them empty."""
        ...

    def pieces(self, size: int) -> list[tuple[int, int]]:
        """`(start, stop)` of pieces of about `size` bytes, which together are all."""
        ...

    def job(self, start: int, stop: int) -> dict[str, Any]:
        """JSON from which `reopen` makes the texts `start` to `stop` in another process."""
        ...


@dataclass(frozen=True)
class Listed:
    """Documents, most of them files."""

    documents: Part

    def __len__(self) -> int:
        return len(self.documents)

    @property
    def size(self) -> int:
        return sum(self.sizes)

    @property
    def sizes(self) -> list[int]:
        return [_size(document) for document in self.documents]

    def read(self, start: int, stop: int) -> Iterator[tuple[str, bytes]]:
        return ((each.name, each.read()) for each in self.documents[start:stop])

    def pieces(self, size: int) -> list[tuple[int, int]]:
        ends, held = [], 0
        for at, each in enumerate(self.sizes):
            held += each
            if held >= size:
                ends.append(at + 1)
                held = 0
        ends = [end for end in ends if end < len(self)]
        return list(zip([0, *ends], [*ends, len(self)], strict=True))

    def job(self, start: int, stop: int) -> dict[str, Any]:
        rows = []
        for each in self.documents[start:stop]:
            path = None if each.path is None else str(each.path.absolute())
            content = each.content.decode() if path is None else ""
            rows.append([each.name, path, content, each.start, each.stop])
        return {"documents": rows}


def reopen(job: dict[str, Any]) -> Texts:
    """The texts that a job describes."""
    if "documents" not in job:
        return Records(**job)
    return Listed(
        tuple(
            Document(name, None if path is None else Path(path), content.encode(), start, stop)
            for name, path, content, start, stop in job["documents"]
        )
    )


def sample(texts: Texts, most: int) -> Iterator[Document]:
    """All texts where they are up to `most` bytes, else runs of them, spread evenly."""
    pieces = texts.pieces(max(1, min(texts.size, most) // 64))
    every = max(1, -(-texts.size // most))
    for start, stop in pieces[:: every if texts.size > most else 1]:
        for name, text in texts.read(start, stop):
            yield Document(name, content=text)


def _size(document: Document) -> int:
    if document.path is None:
        whole = len(document.content)
    else:
        try:
            whole = document.path.stat().st_size
        except OSError:
            whole = 0  # reading it says what is wrong
    stop = whole if document.stop is None else min(whole, document.stop)
    return max(0, stop - document.start)
