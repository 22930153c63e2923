"""A corpus, opened: its training batches, its held-out windows, and what identifies them."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxhpo.data.batches import Batches, held_out_windows
from jaxhpo.data.bigram import bits_per_byte, fit
from jaxhpo.data.building import token_stream
from jaxhpo.data.cache import Cache, key_of
from jaxhpo.data.config import DataConfig
from jaxhpo.data.documents import Document
from jaxhpo.data.mixing import Mixture, counts_of
from jaxhpo.data.prepared import PREFIX
from jaxhpo.data.sides import Side, sides
from jaxhpo.data.streaming import measured, streamed
from jaxhpo.data.texts import sample
from jaxhpo.data.tokenizers import Tokenizer, open_tokenizer
from jaxhpo.errors import UsageError

MOST_TO_LEARN_FROM = 256 << 20
"""Bytes of each source that a tokenizer is trained on, at most."""


@dataclass(frozen=True, eq=False)
class Corpus:
    """Text as tokens. `held_out` is `{"tokens": i32[E, B, T + 1]}`; `train.batch_at` has the rest.

    `bytes_per_token` is that of the held-out part, a separator counting as one byte; `fingerprints`
    are sha256 of the texts (and names) of both parts, and of the tokenizer. Of a mixture,
    `held_out_sources` i64[E, B] says which source a held-out window is of.
    """

    train: Any
    """`Batches`, or what else has `Positions`"""
    held_out: dict[str, np.ndarray]
    tokenizer: Tokenizer
    fingerprints: Mapping[str, str]
    bytes_per_token: float
    train_tokens: int
    held_out_tokens: int
    held_out_sources: np.ndarray | None = None

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
        """Loss, in nats per token on `held_out`, of a bigram model of the whole training part; of a
        mixture, of one for each source, which is told what source a window is of."""
        if self.held_out_sources is None:
            return fit(self.train.example(), self.vocab_size).held_out_loss(self.held_out)
        windows, total = self.held_out["tokens"], 0.0
        for number, part in enumerate(self.train.parts):
            mine = windows[self.held_out_sources == number]
            if len(mine):
                total += fit(part.example(), self.vocab_size).losses(mine).sum()
        return float(total / windows[..., 1:].size)

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
    names, weights = zip(*config.mixture, strict=True)
    if config.stream and not any(name.startswith(PREFIX) for name in names):
        raise UsageError(
            f"data.stream with data.source={config.source}; allowed: with a prepared data set, "
            "tfds:NAME"
        )
    cache = Cache.open(config.cache)
    found = [sides(name, config, cache) for name in names]
    counts = counts_of(weights)
    mixed = len(found) > 1
    if tokenizer is None:
        train = _identity([train.sha256 for train, _ in found])
        texts = lambda: _texts([train for train, _ in found])
        tokenizer = open_tokenizer(config, texts, train, cache)
    windows = config.batch_size * config.eval_batches
    if windows < len(found):
        raise UsageError(
            f"data.batch_size={config.batch_size} times data.eval_batches={config.eval_batches} "
            f"is below the {len(found)} sources of the mixture; allowed: that many or more"
        )
    held = counts_of(weights, windows)
    opener = _Opener(config, cache, tokenizer, context, seed)
    parts = []
    for name, both, count in zip(names, found, held, strict=True):
        try:
            parts.append(opener.part(name, *both, None if not mixed else count))
        except UsageError as error:
            raise UsageError(f"{name}: {error}" if mixed else str(error)) from None
    if mixed:
        batches = Mixture(
            tuple(part.train for part in parts), counts, config.batch_size, seed, rows
        )
    else:
        batches = parts[0].train if rows is None else parts[0].train.for_rows(*rows)
    placed = lambda flat: flat.reshape(config.batch_size, config.eval_batches, -1).swapaxes(0, 1)
    start, stop = rows or (0, config.batch_size)
    windows = np.concatenate([part.windows for part in parts])
    which = np.repeat(np.arange(len(parts)), held)
    shares = np.asarray(held) / sum(held)
    return Corpus(
        train=batches,
        held_out={"tokens": placed(windows)[:, start:stop]},
        tokenizer=tokenizer,
        fingerprints={
            "data": _identity([train.sha256 for train, _ in found], counts),
            "held_out": _identity([held_out.sha256 for _, held_out in found], held),
            "tokenizer": tokenizer.fingerprint,
        },
        bytes_per_token=float(shares @ [part.bytes_per_token for part in parts]),
        train_tokens=sum(part.train_tokens for part in parts),
        held_out_tokens=sum(part.held_out_tokens for part in parts),
        held_out_sources=placed(which)[:, start:stop, 0] if mixed else None,
    )


def training_texts(config: DataConfig) -> Iterator[Document]:
    """The texts that a tokenizer of a config's is trained on: of every source alike, whatever its
    weight, so that another weight is no other tokenizer."""
    if config.languages is not None:
        from jaxhpo.data.translation import training_sentences

        return training_sentences(config)
    cache = Cache.open(config.cache)
    return _texts([sides(name, config, cache)[0] for name, _ in config.mixture])


@dataclass(frozen=True)
class _Part:
    """One source, opened; `windows` is i32[n, T + 1]."""

    train: Any
    windows: np.ndarray
    bytes_per_token: float
    train_tokens: int
    held_out_tokens: int


@dataclass(frozen=True)
class _Opener:
    config: DataConfig
    cache: Cache
    tokenizer: Tokenizer
    context: int
    seed: int

    def part(self, name: str, train: Side, held_out: Side, count: int | None) -> _Part:
        """A source with `count` held-out windows; None: it is alone, with all of them."""
        if self.config.stream and name.startswith(PREFIX):
            return self._streamed(train, held_out, count)
        stream, _ = self._tokens(train)
        other, counts = self._tokens(held_out)
        batch_size, batches = self.config.batch_size, self.config.eval_batches
        if count is not None:
            batch_size, batches = 1, count
            self._check_long(len(stream), "training", 2)
            self._check_long(len(other) - 1, "held-out", count)
        found = held_out_windows(other, self.context, batch_size, batches)["tokens"]
        return _Part(
            train=Batches(stream, self.context, batch_size, self.seed),
            windows=found.swapaxes(0, 1).reshape(-1, self.context + 1),
            bytes_per_token=(counts["bytes"] + counts["documents"]) / len(other),
            train_tokens=len(stream),
            held_out_tokens=len(other),
        )

    def _check_long(self, tokens: int, part: str, windows: int) -> None:
        if tokens < self.context * windows:
            raise UsageError(
                f"the {part} part has {tokens} tokens, and its share of the mixture is {windows} "
                f"windows of model.context={self.context}; allowed: a smaller weight, context, "
                "data.batch_size or data.eval_batches, or more text"
            )

    def _tokens(self, side: Side) -> tuple[np.ndarray, dict[str, Any]]:
        return token_stream(
            self.cache,
            side.sha256,
            side.texts,
            self.tokenizer,
            side.label,
            self.config.workers,
            side.check,
        )

    def _streamed(self, train: Side, held_out: Side, count: int | None) -> _Part:
        records: Any = train.texts()
        others: Any = held_out.texts()
        alone = count is None
        batch_size = self.config.batch_size if alone else 1
        wanted = self.config.batch_size * self.config.eval_batches if count is None else count
        batches = streamed(records, self.tokenizer, self.context, batch_size, self.seed)
        rows = streamed(others, self.tokenizer, self.context, 1, 0)
        mean, _ = measured(records, self.tokenizer)
        other_mean, bytes_per_token = measured(others, self.tokenizer)
        return _Part(
            train=batches,
            windows=rows.tokens_at(np.arange(wanted)),
            bytes_per_token=bytes_per_token,
            train_tokens=round(mean * len(records)),
            held_out_tokens=round(other_mean * len(others)),
        )


def _texts(train: list[Side]) -> Iterator[Document]:
    return itertools.chain.from_iterable(sample(each.texts(), MOST_TO_LEARN_FROM) for each in train)


def _identity(prints: list[str], counts: tuple[int, ...] = ()) -> str:
    """A source's own fingerprint; of several, one of all of them and their windows."""
    return prints[0] if len(prints) == 1 else key_of("mixture", prints, counts)
