"""Documents, how they are split into a training and a held-out part, and their fingerprints."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jaxhpo.errors import UsageError


@dataclass(frozen=True)
class Document:
    """One text: bytes `start` to `stop` of a file, or of `content` where there is no file.

    `name` identifies it in the split and in fingerprints; it says nothing about where a file lies.
    """

    name: str
    path: Path | None = None
    content: bytes = b""
    start: int = 0
    stop: int | None = None

    def read(self) -> bytes:
        """Its text. Raises UsageError where that is unreadable, not UTF-8, or contains NUL."""
        whole = self.content
        if self.path is not None:
            try:
                whole = self.path.read_bytes()
            except OSError as error:
                raise UsageError(f"can't read {self.path}: {error.strerror}") from None
        text = whole[self.start : self.stop]
        shown = self.path or self.name
        try:
            text.decode()
        except UnicodeDecodeError as error:
            at = self.start + error.start
            raise UsageError(f"{shown} is not UTF-8 text: byte {at} can't be decoded") from None
        if (at := text.find(b"\0")) >= 0:
            raise UsageError(
                f"{shown} contains a NUL at byte {self.start + at}; allowed: text without, "
                "for that byte separates documents"
            )
        return text


Part = tuple[Document, ...]


def split(documents: Sequence[Document], share: float) -> tuple[Part, Part]:
    """The training and the held-out documents, each sorted by name.

    A document's side depends on its name alone, so that a corpus that grows keeps its split. Where
    that would leave a side empty, it gets the document nearest to it; a single document is cut.
    """
    if len(documents) == 1:
        return _cut(documents[0], share)
    ranks = sorted((_rank(document.name), document.name, document) for document in documents)
    count = sum(rank < share for rank, _, _ in ranks)
    count = min(max(count, 1), len(ranks) - 1)
    held_out, train = ranks[:count], ranks[count:]
    by_name = lambda part: tuple(d for _, d in sorted((name, d) for _, name, d in part))
    return by_name(train), by_name(held_out)


def fingerprint(texts: Iterable[tuple[str, bytes]]) -> tuple[str, int]:
    """sha256 over names and texts, in order, and the bytes of all texts."""
    digest, size = hashlib.sha256(), 0
    for name, text in texts:
        digest_of(digest, name, text)
        size += len(text)
    return digest.hexdigest(), size


def digest_of(digest: Any, name: str, text: bytes) -> None:
    """Puts one text and its name into a digest."""
    for each in (os.fsencode(name), text):
        digest.update(len(each).to_bytes(8, "little"))
        digest.update(each)


def _rank(name: str) -> float:
    """A number in [0, 1) that a name always has.

    The prefix puts the one odd file of the embedded corpus, a tenth of it and all prose, into the
    training part.
    """
    return (
        int.from_bytes(hashlib.sha256(b"jaxhpo:" + os.fsencode(name)).digest()[:6], "big") / 2**48
    )


def _cut(document: Document, share: float) -> tuple[Part, Part]:
    """Head and tail of one document, cut after a paragraph if one ends nearby, else a line."""
    text = document.read()
    at = int(len(text) * (1 - share))
    for mark in (b"\n\n", b"\n", b" "):
        found = text.rfind(mark, at // 2, at)
        if found >= 0:
            at = found + len(mark)
            break
    else:
        while 0 < at < len(text) and text[at] & 0xC0 == 0x80:
            at -= 1
    if not 0 < at < len(text):
        raise UsageError(
            f"{document.path or document.name} has {len(text)} bytes; too few to hold out a part"
        )
    head = replace(document, name=f"{document.name}:head", start=0, stop=at)
    return (head,), (replace(document, name=f"{document.name}:tail", start=at),)
