"""A parallel corpus, opened: source and target are one text, and the loss is the target's."""

import hashlib
import itertools
import json
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxhpo.data.bigram import fit
from jaxhpo.data.cache import Cache, key_of
from jaxhpo.data.config import DataConfig
from jaxhpo.data.corpus import Corpus
from jaxhpo.data.documents import Document
from jaxhpo.data.packing import Arrays, PackedBatches, pack, unpacked
from jaxhpo.data.pairs import Pairs, training_and_held_out
from jaxhpo.data.sides import SETTLED_NS
from jaxhpo.data.tokenizers import Tokenizer, open_tokenizer
from jaxhpo.errors import UsageError

TOGETHER = 4096
"""Pairs that are encoded, or joined to a document for a tokenizer, at once."""

log = logging.getLogger("jaxhpo.data")


@dataclass(frozen=True, eq=False)
class Translation(Corpus):
    """Pairs of sentences as packed rows. `held_out` is arrays [E, B, ...], see `unpacked`.

    Losses are per target token, its end included, and so is `bytes_per_token`.
    """

    train: PackedBatches

    def bigram_loss(self) -> float:
        """Loss on the targets of `held_out`, in nats per token, of a bigram model of the targets of
        the training part: it knows the token before, and that a separator begins a target."""
        rows, separator = self.train.packed, self.tokenizer.separator
        parts = [rows[at : at + TOGETHER] for at in range(0, len(rows), TOGETHER)]
        targets = np.concatenate([_targets(part, separator) for part in parts])
        losses = fit(targets, self.vocab_size).losses(self.held_out["tokens"])
        return float(losses[self.held_out["mask"] > 0].mean())

    def prompt(self, context: int) -> np.ndarray:
        """The first held-out source with its separator, or the end of it."""
        row = self.held_out["tokens"][0, 0]
        first = int(np.argmax(row == self.tokenizer.separator)) + 1
        return row[max(0, first - context // 2) : first]

    def ended(self, tokens: np.ndarray) -> np.ndarray:
        """A translation: what comes before the first separator."""
        ends = np.flatnonzero(tokens == self.tokenizer.separator)
        return tokens[: ends[0]] if len(ends) else tokens


def open_translation(
    config: DataConfig,
    context: int,
    seed: int,
    rows: tuple[int, int] | None = None,
    tokenizer: Tokenizer | None = None,
) -> Translation:
    """The pairs that a config describes, in rows of `context` tokens; arguments as `open_corpus`.

    Pairs that are longer are left out, with a warning that counts them. Raises UsageError for a
    source that can't be used, naming file and line, and where too few pairs fit.
    """
    cache = Cache.open(config.cache)
    parts = training_and_held_out(config)
    about = [describe(each, config, cache) for each in parts]
    if tokenizer is None:
        tokenizer = open_tokenizer(
            config, lambda: training_sentences(config), about[0]["sha256"], cache
        )
    train, held_out = (
        _rows(*each, context, tokenizer, cache) for each in zip(parts, about, strict=True)
    )
    windows = _windows(held_out, config, tokenizer.separator)
    start, stop = rows or (0, config.batch_size)
    return Translation(
        train=PackedBatches(train, tokenizer.separator, config.batch_size, seed, rows),
        held_out={name: leaf[:, start:stop] for name, leaf in windows.items()},
        tokenizer=tokenizer,
        fingerprints={
            "data": about[0]["sha256"],
            "held_out": about[1]["sha256"],
            "tokenizer": tokenizer.fingerprint,
        },
        bytes_per_token=_target_bytes(windows["tokens"], tokenizer) / float(windows["mask"].sum()),
        train_tokens=train.size,
        held_out_tokens=held_out.size,
    )


def training_sentences(config: DataConfig) -> Iterator[Document]:
    """What a tokenizer is trained on: both sides of the training part."""
    pairs = training_and_held_out(config)[0]
    for number, some in enumerate(_batched(pairs)):
        yield Document(
            f"{pairs.name} pair {number * TOGETHER} and further on",
            content="\n".join(itertools.chain(*some)).encode(errors="surrogatepass"),
        )


def describe(pairs: Pairs, config: DataConfig, cache: Cache) -> dict[str, Any]:
    """`{"sha256", "pairs"}` of a part. Known files are not read again, as in `open_corpus`."""

    def read() -> str:
        digest, count = hashlib.sha256(), 0
        for pair in pairs.read():
            count += 1
            for side in pair:
                raw = side.encode(errors="surrogatepass")
                digest.update(len(raw).to_bytes(8, "little"))
                digest.update(raw)
        if not count:
            raise UsageError(f"{pairs.name} has no pairs; allowed: one or more")
        return json.dumps({"sha256": digest.hexdigest(), "pairs": count})

    stats = [path.stat() for path in pairs.files]
    listed = [
        (str(path.absolute()), stat.st_size, stat.st_mtime_ns)
        for path, stat in zip(pairs.files, stats, strict=True)
    ]
    newest = max((stat.st_mtime_ns for stat in stats), default=0)
    settled = newest < time.time_ns() - SETTLED_NS
    key = key_of("pairs", pairs.name, config.languages, config.held_out, pairs.known, listed)
    return json.loads(cache.text(key, read, keep=settled))


def encode(pairs: Pairs, tokenizer: Tokenizer) -> Iterator[np.ndarray]:
    """Each pair as one text u[n]: the source's tokens, a separator, the target's, a separator."""
    for some in _batched(pairs):
        sides = (tokenizer.encode_many(side) for side in zip(*some, strict=True))
        for source, target in zip(*sides, strict=True):
            end = np.asarray([tokenizer.separator], source.dtype)
            yield np.concatenate([source, end, target, end])


def _rows(
    pairs: Pairs, about: dict[str, Any], context: int, tokenizer: Tokenizer, cache: Cache
) -> np.ndarray:
    key = key_of("rows of pairs", about["sha256"], tokenizer.fingerprint, context)
    padding = 1 if tokenizer.separator == 0 else 0
    build = lambda: pack(list(encode(pairs, tokenizer)), context + 1, padding).ravel()
    rows = cache.tokens(key, build).reshape(-1, context + 1)
    kept = int((rows == tokenizer.separator).sum()) // 2
    if not kept:
        raise UsageError(
            f"model.context={context} is shorter than each of the {about['pairs']} pairs of "
            f"{pairs.name}; allowed: a longer one"
        )
    if kept < about["pairs"]:
        log.warning(
            "%s: %d of %d pairs are longer than model.context=%d and are left out",
            pairs.name, about["pairs"] - kept, about["pairs"], context,
        )  # fmt: skip
    return rows


def _windows(rows: np.ndarray, config: DataConfig, separator: int) -> Arrays:
    """Held-out batches [E, B, ...], spread evenly over the rows; where there are too few rows for
    one batch, empty ones fill it up."""
    batches = max(1, min(config.eval_batches, len(rows) // config.batch_size))
    count = batches * config.batch_size
    at = np.arange(count, dtype=np.int64) * max(len(rows), count) // count
    padding = np.full((max(0, count - len(rows)), rows.shape[1]), 1 if separator == 0 else 0)
    chosen = np.concatenate([rows, padding.astype(rows.dtype)])[at]
    # packed rows come in the order of their longest pair: each batch has some of all
    chosen = chosen.reshape(config.batch_size, batches, -1).swapaxes(0, 1)
    return unpacked(chosen, separator)


def _targets(rows: np.ndarray, separator: int) -> np.ndarray:
    """The tokens of all targets with their separators, one after another."""
    ends = rows == separator
    return rows[(np.cumsum(ends, -1) - ends) % 2 == 1]


def _target_bytes(rows: np.ndarray, tokenizer: Tokenizer) -> int:
    """Bytes of all targets of rows [..., T + 1], an end counting as one."""
    total = 0
    for row in rows.reshape(-1, rows.shape[-1]):
        for text in np.split(row, np.flatnonzero(row == tokenizer.separator) + 1)[1:-1:2]:
            total += len(tokenizer.decode(text).encode()) + 1
    return total


def _batched(pairs: Pairs) -> Iterator[list[tuple[str, str]]]:
    read = pairs.read()
    while some := list(itertools.islice(read, TOGETHER)):
        yield some
