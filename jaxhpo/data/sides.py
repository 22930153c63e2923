"""The training and the held-out part of a source: what identifies them, and their texts."""

import functools
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from jaxhpo.data.building import PIECE_BYTES, Piece
from jaxhpo.data.cache import Cache, key_of
from jaxhpo.data.config import DataConfig
from jaxhpo.data.documents import Document, Part, digest_of, split
from jaxhpo.data.encoder import Counts
from jaxhpo.data.prepared import PREFIX
from jaxhpo.data.sources import read_documents
from jaxhpo.data.splits import parts
from jaxhpo.data.texts import Listed, Texts
from jaxhpo.errors import UsageError

SETTLED_NS = 2 * 10**9


@dataclass(frozen=True)
class Side:
    """One part of a source; its texts are opened when they are needed.

    `sha256` is equal where the texts are. `check` raises UsageError where the texts that were read
    are not those.
    """

    label: str
    sha256: str
    texts: Callable[[], Texts]
    check: Callable[[Sequence[Piece], Sequence[Counts]], None] = lambda pieces, counts: None


def sides(source: str, config: DataConfig, cache: Cache) -> tuple[Side, Side]:
    """The two parts of a source. Raises UsageError where it can't be used."""
    if source.startswith(PREFIX):
        train, held_out = parts(source, config)
        of = lambda part: Side(f"{source} {part.split}", part.fingerprint, lambda: part)
        return of(train), of(held_out)
    documents = read_documents(source, config.glob)
    both = functools.cache(lambda: split(documents, config.held_out))
    described = _describe(config, documents, both, cache)

    def side(number: int) -> Side:
        known = described[number]
        return Side(
            label=source,
            sha256=known["sha256"],
            texts=lambda: Listed(both()[number]),
            check=functools.partial(_check, known["pieces"]),
        )

    return side(0), side(1)


def _check(known: Sequence[str], pieces: Sequence[Piece], counts: Sequence[Counts]) -> None:
    if [each["sha256"] for each in counts] != known:
        raise UsageError("files of data.source changed while they were read; start again")


def _describe(
    config: DataConfig,
    documents: Sequence[Document],
    both: Callable[[], tuple[Part, Part]],
    cache: Cache,
) -> list[dict[str, Any]]:
    """`{"sha256", "pieces"}` of both parts: of all texts, and of those of each piece.

    Known files are not read again: the key has their paths, sizes and times of change. A file that
    changed just now may change again within the clock's grain, so that is not remembered.
    """
    listed, newest = [], 0
    for document in documents:
        if document.path is None:
            listed.append([document.name, key_of(document.content.decode())])
            continue
        try:
            stat = document.path.stat()
        except OSError as error:
            raise UsageError(f"can't read {document.path}: {error.strerror}") from None
        newest = max(newest, stat.st_mtime_ns)
        path = str(document.path.absolute())
        listed.append([document.name, path, stat.st_size, stat.st_mtime_ns])
    settled = newest < time.time_ns() - SETTLED_NS
    key = key_of("files", config.held_out, PIECE_BYTES, listed)
    read = lambda: json.dumps([_digests(Listed(part)) for part in both()])
    return json.loads(cache.text(key, read, keep=settled))


def _digests(texts: Listed) -> dict[str, Any]:
    whole, pieces = hashlib.sha256(), []
    for start, stop in texts.pieces(PIECE_BYTES):
        own = hashlib.sha256()
        for name, text in texts.read(start, stop):
            digest_of(own, name, text)
            digest_of(whole, name, text)
        pieces.append(own.hexdigest())
    return {"sha256": whole.hexdigest(), "pieces": pieces}
