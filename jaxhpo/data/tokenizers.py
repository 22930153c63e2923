"""Text to token ids and back. A new tokenizer is a class and a row of the table."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from jaxhpo.data import subwords
from jaxhpo.data.cache import Cache
from jaxhpo.data.config import DataConfig
from jaxhpo.data.documents import Document
from jaxhpo.errors import UsageError


class Tokenizer(Protocol):
    """Ids are below `vocab_size`; `separator` ends every document and never comes from text.

    `encode` gives u[N] of the narrowest dtype that holds every id; `decode` leaves separators out.
    `fingerprint` is equal exactly where the ids of every text are.
    """

    @property
    def vocab_size(self) -> int: ...

    @property
    def separator(self) -> int: ...

    @property
    def fingerprint(self) -> str: ...

    def encode(self, text: str) -> np.ndarray: ...

    def encode_many(self, texts: Sequence[str]) -> Iterable[np.ndarray]: ...

    def decode(self, ids: Iterable[int]) -> str: ...


@dataclass(frozen=True)
class Bytes:
    """The bytes of UTF-8; NUL, which no text may contain, separates documents."""

    vocab_size: int = 256
    separator: int = 0
    fingerprint: str = hashlib.sha256(b"utf-8 bytes, separator 0").hexdigest()

    def encode(self, text: str) -> np.ndarray:
        """u8[N]. Raises UsageError for a text with NUL or lone surrogates."""
        try:
            raw = text.encode()
        except UnicodeEncodeError:
            raise UsageError("the text can't be encoded as UTF-8") from None
        if b"\0" in raw:
            raise UsageError("the text contains NUL, which separates documents; leave it out")
        return np.frombuffer(raw, np.uint8)

    def encode_many(self, texts: Sequence[str]) -> Iterable[np.ndarray]:
        return map(self.encode, texts)

    def decode(self, ids: Iterable[int]) -> str:
        """Text; bytes that are not UTF-8, as at the cut of a sample, show as U+FFFD."""
        kept = bytes(int(each) for each in ids if each != self.separator)
        return kept.decode("utf-8", errors="replace")


def _bytes(
    config: DataConfig, train: Callable[[], Iterable[Document]], fingerprint: str, cache: Cache
) -> Tokenizer:
    _refuse_vocab_size(config)
    return Bytes()


def _bpe(
    config: DataConfig, train: Callable[[], Iterable[Document]], fingerprint: str, cache: Cache
) -> Tokenizer:
    return subwords.trained(config.vocab_size, train, fingerprint, cache)


TOKENIZERS: dict[
    str, Callable[[DataConfig, Callable[[], Iterable[Document]], str, Cache], Tokenizer]
] = {
    "bytes": _bytes,
    "bpe": _bpe,
}
"""Name -> the tokenizer, from the config and the training part (and its fingerprint) alone."""


def open_tokenizer(
    config: DataConfig, train: Callable[[], Iterable[Document]], fingerprint: str, cache: Cache
) -> Tokenizer:
    """The tokenizer that a config asks for. Raises UsageError naming `data.tokenizer`."""
    if config.tokenizer in TOKENIZERS:
        return TOKENIZERS[config.tokenizer](config, train, fingerprint, cache)
    _refuse_vocab_size(config)
    return subwords.loaded(config.tokenizer, tuple(TOKENIZERS))


def _refuse_vocab_size(config: DataConfig) -> None:
    if config.vocab_size is not None:
        raise UsageError(
            f"data.vocab_size={config.vocab_size} is for data.tokenizer=bpe only, and this is "
            f"{config.tokenizer}; leave it out"
        )
