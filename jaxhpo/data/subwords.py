"""Byte-pair encodings, trained here or read from a tokenizer.json, by the tokenizers library."""

import difflib
import functools
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxhpo.data.cache import Cache, key_of
from jaxhpo.data.documents import Document
from jaxhpo.errors import UsageError

VOCAB_SIZE = 4096
LEAST = 257
MOST = 1 << 20
MOST_BYTES = 64 << 20
TOGETHER = 64
SEPARATORS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>", "[SEP]")
"""Special tokens that end a document in published tokenizers."""


class Subwords:
    """A tokenizer of the tokenizers library, behind `jaxhpo.data.tokenizers.Tokenizer`.

    Special tokens that a text spells out are encoded as plain text. Without a known one to end a
    document, the separator is one more id. Raises UsageError for ids that leave large gaps.
    """

    def __init__(self, json: str, name: str) -> None:
        self.name, self.json = name, json
        self.engine = self._guarded(lambda: _parse(json), "can't be read")
        vocab = self._guarded(lambda: self.engine.get_vocab(with_added_tokens=True), "has no ids")
        highest = max(vocab.values(), default=-1)
        if not vocab or min(vocab.values()) < 0 or highest >= min(MOST, 2 * len(vocab) + 1024):
            raise UsageError(
                f"data.tokenizer={name} has {len(vocab)} tokens and ids up to {highest}; allowed: "
                f"ids without large gaps, below {MOST}"
            )
        known = [vocab[each] for each in SEPARATORS if each in vocab]
        self.separator = known[0] if known else highest + 1
        self.vocab_size = max(highest, self.separator) + 1
        self.dtype = np.uint16 if self.vocab_size <= 1 << 16 else np.uint32
        self.fingerprint = hashlib.sha256(json.encode()).hexdigest()

    def encode(self, text: str) -> np.ndarray:
        """u16[N], or u32[N] for more than 65536 ids."""
        return next(iter(self.encode_many([text])))

    def encode_many(self, texts: Sequence[str]) -> Iterator[np.ndarray]:
        """The ids of each text; several at once, on all cores."""
        for start in range(0, len(texts), TOGETHER):
            some = list(texts[start : start + TOGETHER])
            for encoding in self._guarded(
                lambda some=some: self.engine.encode_batch_fast(some, add_special_tokens=False),
                "can't encode the text",
            ):
                yield np.asarray(encoding.ids, self.dtype)

    @property
    def templated(self) -> bool:
        """Does it put special tokens of its own around a text, or between two?"""
        return self.engine.num_special_tokens_to_add(is_pair=True) > 0

    @functools.cached_property
    def opening(self) -> tuple[int, ...]:
        """Ids that the template puts before a text (Llama's and Mistral's `<s>`), if any."""
        found = self._guarded(lambda: self.engine.encode("x"), "can't encode the text")
        before = itertools.takewhile(
            lambda pair: pair[1], zip(found.ids, found.special_tokens_mask, strict=True)
        )
        return tuple(token for token, _ in before)

    def encode_templated(
        self, texts: Sequence[str], pairs: Sequence[str] | None, length: int
    ) -> tuple[list[list[int]], list[list[int]]]:
        """Ids and segment numbers of texts, or of pairs of them, with the special tokens that the
        template says, cut to `length` tokens."""
        engine = _parse(self.engine.to_str())
        engine.enable_truncation(length, strategy="longest_first")
        inputs = list(texts) if pairs is None else list(zip(texts, pairs, strict=True))
        found = self._guarded(lambda: engine.encode_batch(inputs), "can't encode the text")
        return [each.ids for each in found], [each.type_ids for each in found]

    def decode(self, ids: Iterable[int]) -> str:
        hidden = {self.separator, *self.opening}
        kept = [int(each) for each in ids if each not in hidden]
        return self._guarded(
            lambda: self.engine.decode(kept, skip_special_tokens=False), "can't decode"
        )

    def _guarded(self, call: Callable[[], Any], what: str) -> Any:
        """The library's panics are no `Exception`s: they would pass every other net."""
        try:
            return call()
        except (KeyboardInterrupt, SystemExit, MemoryError):
            raise
        except BaseException as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise UsageError(f"data.tokenizer={self.name} {what}: {reason}") from None


def trained(
    vocab_size: int | None, train: Callable[[], Iterable[Document]], fingerprint: str, cache: Cache
) -> Subwords:
    """A byte-level BPE of the training part, from the cache if it was trained before.

    A small corpus may give fewer tokens than asked for. Raises UsageError below 257: the bytes and
    the separator.
    """
    size = VOCAB_SIZE if vocab_size is None else vocab_size
    if not LEAST <= size <= MOST:
        raise UsageError(f"data.vocab_size={size}; allowed: {LEAST} to {MOST}")
    key = key_of("bpe", fingerprint, size)
    return Subwords(cache.text(key, lambda: _train(size - 1, train())), "bpe")


def loaded(path: str, names: Sequence[str]) -> Subwords:
    """The tokenizer in a file. Raises UsageError if there is none that can be used."""
    try:
        file = Path(path).expanduser()
        there = file.is_file()
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"data.tokenizer={path}: {reason}") from None
    if not there:
        near = difflib.get_close_matches(path, names, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(
            f"data.tokenizer={path} is not a file; allowed: {', '.join(names)}, or the path of a "
            f"tokenizer.json{hint}"
        )
    try:
        if (size := file.stat().st_size) > MOST_BYTES:
            raise UsageError(
                f"data.tokenizer={path} has {size >> 20} MB; allowed: up to {MOST_BYTES >> 20} MB"
            )
        json = file.read_bytes().decode()
    except OSError as error:
        raise UsageError(f"data.tokenizer={path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"data.tokenizer={path} is not UTF-8 at byte {error.start}") from None
    return Subwords(json, path)


def _parse(json: str) -> Any:
    from tokenizers import Tokenizer

    engine = Tokenizer.from_str(json)
    engine.no_truncation()
    engine.no_padding()
    engine.encode_special_tokens = True
    return engine


def _train(size: int, part: Iterable[Document]) -> str:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    engine = Tokenizer(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        show_progress=False,
        special_tokens=[],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    engine.train_from_iterator((document.read().decode() for document in part), trainer)
    return engine.to_str()
