"""A corpus, opened: its training batches, its held-out windows, and what identifies them."""

import functools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxhpo.data.batches import Batches, held_out_windows
from jaxhpo.data.bigram import bits_per_byte, fit
from jaxhpo.data.cache import Cache, key_of
from jaxhpo.data.config import DataConfig
from jaxhpo.data.documents import Document, Part, fingerprint, split
from jaxhpo.data.sources import read_documents
from jaxhpo.data.tokenizers import Tokenizer, open_tokenizer
from jaxhpo.errors import UsageError

SETTLED_NS = 2 * 10**9


@dataclass(frozen=True, eq=False)
class Corpus:
    """Text as tokens. `held_out` is `{"tokens": i32[E, B, T + 1]}`; `train` (`Batches`) has the
    rest.

    `bytes_per_token` is that of the held-out part, a separator counting as one byte; `fingerprints`
    are sha256 of the texts (and names) of both parts, and of the tokenizer.
    """

    train: Any
    held_out: dict[str, np.ndarray]
    tokenizer: Tokenizer
    fingerprints: Mapping[str, str]
    bytes_per_token: float
    train_tokens: int
    held_out_tokens: int

    @property
    def vocab_size(self) -> int:
        return self.tokenizer.vocab_size

    def batch_at(self, step: int, steps: int) -> dict[str, np.ndarray]:
        """`{"tokens": i32[S, B, T + 1]}`: the training batches of `steps` steps from `step` on."""
        return self.train.batch_at(step, steps)

    def check(self, vocab_size: int | None) -> int:
        """The model's vocabulary (None: the tokenizer's). Raises UsageError if ids exceed it."""
        if vocab_size is None:
            return self.vocab_size
        if vocab_size < self.vocab_size:
            raise UsageError(
                f"model.vocab_size={vocab_size} is below the tokenizer's {self.vocab_size} tokens; "
                f"allowed: {self.vocab_size} or more, or leave it out"
            )
        return vocab_size

    def bits_per_byte(self, loss: float) -> float:
        """A loss in nats per token as bits per byte of held-out text."""
        return bits_per_byte(loss, self.bytes_per_token)

    def baseline(self) -> tuple[str, float]:
        """Name and loss of the model that a language model must beat."""
        return "bigram", self.bigram_loss()

    def bigram_loss(self) -> float:
        """Loss, in nats per token on `held_out`, of a bigram model of the whole training part."""
        return fit(self.train.stream, self.vocab_size).held_out_loss(self.held_out)

    def prompt(self, context: int) -> np.ndarray:
        """Held-out tokens i32[N] that a sample continues."""
        return self.held_out["tokens"][0, 0, : max(context // 2, 1)]

    def ended(self, tokens: np.ndarray) -> np.ndarray:
        """What of the tokens written after a prompt is shown: all."""
        return tokens


def open_corpus(
    config: DataConfig,
    context: int,
    seed: int,
    rows: tuple[int, int] | None = None,
    tokenizer: Tokenizer | None = None,
) -> Corpus:
    """The corpus that a config describes, with windows of `context` tokens.

    `rows` are the rows `[start, stop)` of each batch that this host reads (default: all);
    `tokenizer` is one that a model was made with (default: the config's). Raises
    UsageError for a source or tokenizer that can't be used, and for a part that is too short.
    """
    if config.languages is not None:
        from jaxhpo.data.translation import open_translation

        return open_translation(config, context, seed, rows, tokenizer)
    cache = Cache.open(config.cache)
    documents = read_documents(config)
    parts = functools.cache(lambda: split(documents, config.held_out))
    train, held_out = _describe(config, documents, parts, cache)
    if tokenizer is None:
        tokenizer = open_tokenizer(config, lambda: parts()[0], train["sha256"], cache)

    def stream(side: int, sha256: str) -> np.ndarray:
        key = key_of("tokens", sha256, tokenizer.fingerprint)
        return cache.tokens(key, lambda: _pack(parts()[side], sha256, tokenizer))

    train_stream = stream(0, train["sha256"])
    held_out_stream = stream(1, held_out["sha256"])
    windows = held_out_windows(held_out_stream, context, config.batch_size, config.eval_batches)
    start, stop = rows or (0, config.batch_size)
    return Corpus(
        train=Batches(train_stream, context, config.batch_size, seed, rows),
        held_out={name: leaf[:, start:stop] for name, leaf in windows.items()},
        tokenizer=tokenizer,
        fingerprints={
            "data": train["sha256"],
            "held_out": held_out["sha256"],
            "tokenizer": tokenizer.fingerprint,
        },
        bytes_per_token=(held_out["bytes"] + held_out["documents"]) / len(held_out_stream),
        train_tokens=len(train_stream),
        held_out_tokens=len(held_out_stream),
    )


def training_texts(config: DataConfig) -> Part:
    """The documents that a tokenizer of a config's is trained on."""
    if config.languages is None:
        return split(read_documents(config), config.held_out)[0]
    from jaxhpo.data.pairs import training_and_held_out
    from jaxhpo.data.translation import texts

    return texts(training_and_held_out(config)[0])


def _describe(
    config: DataConfig,
    documents: Sequence[Document],
    parts: Callable[[], tuple[Part, Part]],
    cache: Cache,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """`{"sha256", "bytes", "documents"}` of both parts.

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

    def read() -> str:
        described = []
        for part in parts():
            sha256, size = fingerprint((each.name, each.read()) for each in part)
            described.append({"sha256": sha256, "bytes": size, "documents": len(part)})
        return json.dumps(described)

    settled = newest < time.time_ns() - SETTLED_NS
    train, held_out = json.loads(
        cache.text(key_of("files", config.held_out, listed), read, keep=settled)
    )
    return train, held_out


def _pack(part: Part, sha256: str, tokenizer: Tokenizer) -> np.ndarray:
    """The documents of a part as one stream, a separator after each."""
    texts = [document.read() for document in part]
    if fingerprint(zip((each.name for each in part), texts, strict=True))[0] != sha256:
        raise UsageError("files of data.source changed while they were read; start again")
    pieces: list[np.ndarray] = []
    for ids in tokenizer.encode_many([text.decode() for text in texts]):
        pieces += [ids, np.asarray([tokenizer.separator], ids.dtype)]
    return np.concatenate(pieces)
