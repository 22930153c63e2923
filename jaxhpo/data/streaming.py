"""Batches straight from a prepared data set, for one that is too large for a token cache.

Grain reads; which records a row is made of is arithmetic, so that batches are the same function of
seed and step as those of a cache, on any number of hosts.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxhpo.data.batches import Positions, mixed, shuffled
from jaxhpo.data.records import Records
from jaxhpo.data.tokenizers import Tokenizer
from jaxhpo.errors import UsageError

SAMPLED = 256
"""Records whose mean length is taken for that of all."""
BYTES_PER_TOKEN = 16
"""Of a text longer than a row can hold at so many bytes a token, only a part is encoded."""
MOST_ROUNDS = 10_000
EXAMPLE_TOKENS = 1 << 20
_FILLERS, _CUTS = 0x46494C4C, 0x43555453
"""What other random numbers are told apart by."""


@dataclass(frozen=True, eq=False)
class Streamed(Positions):
    """Training batches of records; a row of T + 1 tokens is made of `records_per_row` of them.

    An epoch is a permutation of all records, each has its own, and less than a row is left over.
    The texts of a row follow each other, a separator after each. What is too long is cut at a place
    drawn anew each time; what is too short is filled up with more records, drawn beside the epoch's
    order.
    """

    records: Records
    tokenizer: Tokenizer
    context: int
    batch_size: int
    records_per_row: int
    seed: int = 0
    rows: tuple[int, int] | None = None
    shift: int = 0

    def __post_init__(self) -> None:
        if self.batch_size > self.windows:
            raise UsageError(
                f"data.batch_size={self.batch_size} is more than the training part has: "
                f"{len(self.records)} records, {self.records_per_row} in a row; allowed: up to "
                f"{self.windows}"
            )
        self.check_rows()

    @property
    def windows(self) -> int:
        """Rows in one epoch."""
        return len(self.records) // self.records_per_row

    def records_at(self, index: np.ndarray) -> np.ndarray:
        """The records that rows begin with: i64[N] -> i64[N, records_per_row]."""
        epoch, row = np.divmod(index, self.windows)
        place = row[..., None] * self.records_per_row + np.arange(self.records_per_row)
        order, _ = shuffled(
            epoch[..., None] * len(self.records) + place, len(self.records), self.seed
        )
        return order

    def tokens_at(self, index: np.ndarray) -> np.ndarray:
        flat = np.asarray(index, np.int64).ravel()
        need = self.context + 1
        rows = [np.zeros(0, np.int64)] * len(flat)
        places, short = self.records_at(flat), np.arange(len(flat))
        for number in range(MOST_ROUNDS):
            texts = self._encoded(places, flat[short], number)
            for row, text in zip(short, texts, strict=True):
                rows[row] = np.concatenate([rows[row], text])
            short = np.asarray([row for row in short if len(rows[row]) < need], np.int64)
            if not len(short):
                break
            fillers = flat[short, None] + np.int64(number) * len(self.records)
            places, _ = shuffled(fillers, len(self.records), self.seed ^ _FILLERS)
        else:
            raise UsageError(f"data set {self.records.name} has no texts to fill a row with")
        starts = self._draw(flat, _CUTS) % np.asarray(
            [len(row) - need + 1 for row in rows], np.uint64
        )
        cut = [row[at : at + need] for row, at in zip(rows, starts.astype(np.int64), strict=True)]
        return np.stack(cut).astype(np.int32).reshape(*np.shape(index), need)

    def example(self) -> np.ndarray:
        """Tokens u[N] that a bigram model is fitted to: of rows that make up a million tokens."""
        count = min(self.windows, max(1, EXAMPLE_TOKENS // self.context))
        return self.tokens_at(np.arange(count)).ravel()

    def _encoded(self, places: np.ndarray, index: np.ndarray, number: int) -> list[np.ndarray]:
        """The records of each row joined, i64[n] for each of the N rows of places [N, k]."""
        texts = self.records.at(places.ravel().tolist())
        most = (self.context + 1) * BYTES_PER_TOKEN
        draws = self._draw(index, number)
        each = places.shape[1]
        cut = [
            _part(text, most, int(draws[at // each])) if len(text) > most else text.decode()
            for at, text in enumerate(texts)
        ]
        end = np.asarray([self.tokenizer.separator], np.int64)
        ids = [np.concatenate([found, end]) for found in self.tokenizer.encode_many(cut)]
        return [np.concatenate(ids[at : at + each]) for at in range(0, len(ids), each)]

    def _draw(self, index: np.ndarray, purpose: int) -> np.ndarray:
        key = mixed(np.asarray([self.seed], np.uint64) + np.uint64(purpose))
        return mixed(index.astype(np.uint64) + key)


def _part(text: bytes, most: int, draw: int) -> str:
    """`most` bytes from a place drawn; half a letter at either end is left out."""
    start = draw % (len(text) - most + 1)
    return text[start : start + most].decode(errors="ignore")


def measured(records: Records, tokenizer: Tokenizer) -> tuple[float, float]:
    """Mean tokens of a record, separator and all, and bytes of a token, from a sample."""
    count = min(SAMPLED, len(records))
    texts = records.at([at * len(records) // count for at in range(count)])
    tokens = sum(len(ids) + 1 for ids in tokenizer.encode_many([each.decode() for each in texts]))
    return tokens / count, (sum(map(len, texts)) + count) / tokens


def streamed(
    records: Records, tokenizer: Tokenizer, context: int, batch_size: int, seed: int, **rows: Any
) -> Streamed:
    """Batches of records, so many in a row as fill it on average."""
    mean, _ = measured(records, tokenizer)
    each = max(1, min(round((context + 1) / mean), len(records)))
    return Streamed(records, tokenizer, context, batch_size, each, seed, **rows)
