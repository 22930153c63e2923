"""Texts to tokens: one piece of a corpus, here or in a process that does nothing else.

`python -m jaxhpo.data.encoder` reads a tokenizer and then pieces as lines of JSON, writes each
piece's tokens into a folder, and answers each with a line.
"""

import hashlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from jaxhpo.data.cache import Cache
from jaxhpo.data.documents import digest_of
from jaxhpo.data.subwords import Subwords
from jaxhpo.data.texts import Texts, reopen
from jaxhpo.data.tokenizers import Bytes, Tokenizer
from jaxhpo.errors import UsageError

TOGETHER = 1024
"""Texts that are encoded in one call."""

Counts = dict[str, Any]
"""{"bytes", "documents", "sha256"} of texts, see `jaxhpo.data.documents.fingerprint`."""


def encode(texts: Texts, start: int, stop: int, tokenizer: Tokenizer) -> tuple[np.ndarray, Counts]:
    """The texts `start` to `stop` as one stream u[N], a separator after each, and their counts."""
    digest, size, documents = hashlib.sha256(), 0, 0
    pieces = [tokenizer.encode("")]  # of the dtype that all have
    for some in _together(texts.read(start, stop)):
        for name, text in some:
            digest_of(digest, name, text)
            size += len(text)
        documents += len(some)
        for ids in tokenizer.encode_many([text.decode() for _, text in some]):
            pieces += [ids, np.asarray([tokenizer.separator], ids.dtype)]
    counts = {"bytes": size, "documents": documents, "sha256": digest.hexdigest()}
    return np.concatenate(pieces), counts


def keep(folder: Path, key: str, tokens: np.ndarray, counts: Counts) -> None:
    """Writes a piece; what makes it valid comes last. Raises OSError where it can't be written."""
    cache = Cache(folder)
    cache.keep_text(key, json.dumps(counts))
    cache.keep_tokens(key, [tokens])


def kept(folder: Path, key: str) -> tuple[np.ndarray, Counts] | None:
    """A piece that was written whole and is undamaged."""
    cache = Cache(folder)
    tokens, counts = cache.find_tokens(key), cache.find_text(key)
    return None if tokens is None or counts is None else (tokens, json.loads(counts))


def portable(tokenizer: Tokenizer) -> dict[str, str] | None:
    """JSON from which another process makes the tokenizer; None where it has none."""
    if isinstance(tokenizer, Bytes):
        return {"kind": "bytes"}
    if isinstance(tokenizer, Subwords):
        return {"kind": "subwords", "json": tokenizer.json, "name": tokenizer.name}
    return None


def serve(requests: IO[str], answers: IO[str]) -> None:
    """Encodes what is asked for until nobody asks any more."""
    about = json.loads(requests.readline())
    tokenizer: Any = Bytes()
    if about["kind"] == "subwords":
        tokenizer = Subwords(about["json"], about["name"])
    for line in requests:
        asked = json.loads(line)
        answer: dict[str, Any] = {}
        try:
            texts = reopen(asked["texts"])
            tokens, counts = encode(texts, 0, len(texts), tokenizer)
            keep(Path(asked["folder"]), asked["key"], tokens, counts)
        except UsageError as error:
            answer = {"refused": str(error)}
        except OSError as error:
            answer = {"failed": [error.errno, error.strerror or str(error)]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _together(rows: Iterator[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    some: list[tuple[str, bytes]] = []
    for row in rows:
        some.append(row)
        if len(some) == TOGETHER:
            yield some
            some = []
    if some:
        yield some


def main() -> None:
    """Answers go to standard output alone: what libraries print goes to standard error.

    An interrupt from the keyboard is the asker's, who then asks no more.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(sys.stdin, answers)
    answers.close()
    os._exit(0)  # threads that read ahead need not be waited for


if __name__ == "__main__":
    main()
