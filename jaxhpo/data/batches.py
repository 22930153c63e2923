"""Batches of token windows: a pure function of seed and step. No position is ever stored."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jaxhpo.errors import UsageError

ROUNDS = 6
EXAMPLE_TOKENS, RUNS = 1 << 26, 64


class Positions:
    """Batches by step, for a dataclass that knows the tokens of a running index (`tokens_at`).

    It has `batch_size`, `rows` (those of a batch that this host reads, `[start, stop)`; none means
    all) and `shift` (how many batches further on the position is than the step).
    """

    @property
    def span(self: Any) -> tuple[int, int]:
        return self.rows or (0, self.batch_size)

    def for_rows(self: Any, start: int, stop: int) -> Any:
        """The same batches, of which only some rows are read."""
        return replace(self, rows=(start, stop))

    def for_shard(self: Any, shard: int, shards: int) -> Any:
        """The rows of one of `shards` equal shards of each batch."""
        if not 0 <= shard < shards or self.batch_size % shards:
            raise ValueError(f"shard {shard} of {shards} of a batch of {self.batch_size}")
        each = self.batch_size // shards
        return self.for_rows(shard * each, (shard + 1) * each)

    def tokens_at(self, index: np.ndarray) -> np.ndarray:
        """Windows by their running index: i64[...] -> i32[..., T + 1]."""
        raise NotImplementedError

    def batch_at(self: Any, step: int, steps: int) -> dict[str, np.ndarray]:
        """`{"tokens": i32[S, B, T + 1]}` of the `steps` steps from `step` on, this host's rows."""
        if step < 0 or steps < 0:
            raise ValueError(f"step={step} and steps={steps} must not be negative")
        # a position that was reset is negative before the step of the reset, where nobody trains
        begin = max(step + self.shift, 0)
        each = np.arange(begin, begin + steps, dtype=np.int64)[:, None]
        return {
            "tokens": self.tokens_at(each * self.batch_size + np.arange(*self.span, dtype=np.int64))
        }

    def check_rows(self: Any) -> None:
        start, stop = self.span
        if not 0 <= start < stop <= self.batch_size:
            raise ValueError(f"rows {start} to {stop} are not in a batch of {self.batch_size}")


@dataclass(frozen=True, eq=False)
class Batches(Positions):
    """Training batches of a stream of tokens u[N].

    An epoch is a permutation of all its windows, which are `context` tokens long and share one
    token with their neighbours (its last target). Every window comes once an epoch; each epoch has
    its own order, and shifts the windows by an offset of its own. `rows` are the rows of a batch
    that this host reads, `[start, stop)`; none means all. `shift` is how many batches further on
    the position is than the step. Raises UsageError if one batch does not fit into an epoch.
    """

    stream: np.ndarray
    context: int
    batch_size: int
    seed: int = 0
    rows: tuple[int, int] | None = None
    shift: int = 0

    def __post_init__(self) -> None:
        need, have = self.context * (self.batch_size + 1), len(self.stream)
        if have < need:
            raise UsageError(
                f"the training part has {have} tokens, but model.context={self.context} with "
                f"data.batch_size={self.batch_size} needs {need}; allowed: "
                + allowed(have, self.batch_size + 1, "model.context")
            )
        self.check_rows()

    @property
    def windows(self) -> int:
        """Windows in one epoch."""
        return len(self.stream) // self.context - 1

    def tokens_at(self, index: np.ndarray) -> np.ndarray:
        """Windows by their running index: i64[...] -> i32[..., T + 1]."""
        return _gather(self.stream, self.window_at(index), self.context)

    def example(self) -> np.ndarray:
        """Tokens u[N] that a bigram model is fitted to: all, or runs of a stream that is long."""
        if len(self.stream) <= EXAMPLE_TOKENS:
            return self.stream
        starts = np.arange(RUNS) * (len(self.stream) // RUNS)
        return np.concatenate([self.stream[at : at + EXAMPLE_TOKENS // RUNS] for at in starts])

    def window_at(self, index: np.ndarray) -> np.ndarray:
        """Where in the stream the window with a running index starts; i64[...] -> i64[...]."""
        order, keys = shuffled(index, self.windows, self.seed)
        shift = (mixed(keys) % np.uint64(self.context)).astype(np.int64)
        return shift + order * self.context


def shuffled(index: np.ndarray, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Which of `size` things a running index means, i64[...], and the keys u64[...] of its epochs.

    An epoch is a permutation of all of them, and each epoch has its own.
    """
    epoch, place = np.divmod(index, size)
    keys = mixed(mixed(epoch.astype(np.uint64)) + np.uint64(seed))
    return _permuted(place.astype(np.uint64), keys, size).astype(np.int64), keys


def held_out_windows(
    stream: np.ndarray, context: int, batch_size: int, batches: int
) -> dict[str, np.ndarray]:
    """`{"tokens": i32[E, B, T + 1]}`: fixed windows of a held-out stream.

    No token is a target twice. The windows are spread evenly over the stream, and so are those of
    each batch. Raises UsageError if the stream is too short.
    """
    count = batch_size * batches
    spacing = (len(stream) - 1) // count
    if spacing < context:
        most = (len(stream) - 1) // (context * batch_size)
        raise UsageError(
            f"the held-out part has {len(stream)} tokens, but model.context={context} with "
            f"data.batch_size={batch_size} and data.eval_batches={batches} needs "
            f"{context * count + 1}; allowed: "
            + (
                f"data.eval_batches up to {most}"
                if most
                else allowed(len(stream) - 1, count, "model.context")
            )
            + ", or a larger data.held_out"
        )
    starts = np.arange(count, dtype=np.int64) * (len(stream) - 1) // count
    return {"tokens": _gather(stream, starts.reshape(batch_size, batches).T, context)}


def allowed(tokens: int, rows: int, option: str) -> str:
    """What an option may be when `rows` windows must fit into so many tokens."""
    most = tokens // rows
    return f"{option} up to {most}" if most else "a smaller data.batch_size, or more text"


def _gather(stream: np.ndarray, starts: np.ndarray, context: int) -> np.ndarray:
    return stream[starts[..., None] + np.arange(context + 1)].astype(np.int32)


def _permuted(place: np.ndarray, keys: np.ndarray, size: int) -> np.ndarray:
    """A permutation of range(size) chosen by each key, evaluated at `place`; u64 -> u64.

    A balanced Feistel network on the next power of four; what falls outside is put through again
    ("cycle walking", Black and Rogaway 2002).
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    place, keys = np.broadcast_arrays(place, keys)
    out, left = place.ravel().copy(), np.arange(place.size)
    keys = keys.ravel()
    while left.size:
        out[left] = _feistel(out[left], keys[left], half)
        left = left[out[left] >= size]
    return out.reshape(place.shape)


def _feistel(x: np.ndarray, keys: np.ndarray, half: int) -> np.ndarray:
    mask, bits = np.uint64(2**half - 1), np.uint64(half)
    high, low = x >> bits, x & mask
    for number in range(ROUNDS):
        random = mixed(keys + np.uint64(number << 32) + low)
        high, low = low, high ^ (random & mask)
    return (high << bits) | low


def mixed(x: np.ndarray) -> np.ndarray:
    """splitmix64: u64 -> u64, one to one; wraps around, as it should."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
