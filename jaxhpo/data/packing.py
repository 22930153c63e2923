"""Pairs of token sequences in rows of one length, and batches of rows."""

import bisect
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jaxhpo.data.batches import Positions, shuffled
from jaxhpo.errors import UsageError

Arrays = dict[str, np.ndarray]


def pack(texts: Sequence[np.ndarray], length: int, padding: int) -> np.ndarray:
    """Rows [R, length] that hold the texts u[n], each whole and once; those longer are left out.

    The longest text that is left opens a row, and the longest that still fits is added until none
    does: best-fit decreasing, so that what texts are in a row depends on their lengths alone.
    """
    waiting: dict[int, deque[int]] = {}
    for at, text in enumerate(texts):
        if len(text) <= length:
            waiting.setdefault(len(text), deque()).append(at)
    sizes = sorted(waiting)
    rows: list[list[int]] = []
    while sizes:
        row, room = [], length
        while place := bisect.bisect_right(sizes, room):
            size = sizes[place - 1]
            row.append(waiting[size].popleft())
            room -= size
            if not waiting[size]:
                sizes.pop(place - 1)
        rows.append(row)
    dtype = texts[0].dtype if len(texts) else np.uint16
    packed = np.full((len(rows), length), padding, dtype)
    for whole, row in zip(packed, rows, strict=True):
        joined = np.concatenate([texts[at] for at in row])
        whole[: len(joined)] = joined
    return packed


def unpacked(rows: np.ndarray, separator: int) -> Arrays:
    """`{"tokens": i32[..., T + 1], "mask": f32[..., T], "segments": i32[..., T]}` of packed rows.

    A pair is a source and a target, and the separator ends both. The mask is one where the next
    token belongs to a target or ends it; `segments` counts the pairs, the padding being one more.
    """
    ends = rows == separator
    before = np.cumsum(ends, -1) - ends
    return {
        "tokens": rows.astype(np.int32),
        "mask": (before[..., 1:] % 2).astype(np.float32),
        "segments": (before[..., :-1] // 2).astype(np.int32),
    }


@dataclass(frozen=True, eq=False)
class PackedBatches(Positions):
    """Training batches of packed rows u[R, T + 1], see `pack` and `unpacked`.

    An epoch is a permutation of all rows, and each epoch has its own; what pairs share a row stays.
    `rows` are those of a batch that this host reads, `[start, stop)`; none means all. `shift` is
    how many batches further on the position is than the step. Raises UsageError for a batch larger
    than an epoch.
    """

    packed: np.ndarray
    separator: int
    batch_size: int
    seed: int = 0
    rows: tuple[int, int] | None = None
    shift: int = 0

    def __post_init__(self) -> None:
        if self.batch_size > self.windows:
            raise UsageError(
                f"data.batch_size={self.batch_size} is more than the training part has rows of "
                f"model.context={self.packed.shape[1] - 1} tokens; allowed: up to {self.windows}"
            )
        self.check_rows()

    @property
    def windows(self) -> int:
        """Rows in one epoch."""
        return len(self.packed)

    def tokens_at(self, index: np.ndarray) -> np.ndarray:
        order, _ = shuffled(index, self.windows, self.seed)
        return self.packed[order]

    def batch_at(self, step: int, steps: int) -> Arrays:
        """Arrays [S, B, ...] of the `steps` steps from `step` on, this host's rows."""
        return unpacked(super().batch_at(step, steps)["tokens"], self.separator)
