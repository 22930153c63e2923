"""Several sources in one stream of batches, each with its share: a function of seed and step."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxhpo.data.batches import Positions, shuffled
from jaxhpo.data.config import MOST_UNEQUAL

BLOCK = MOST_UNEQUAL
"""Windows after which every source has had exactly its share."""


@dataclass(frozen=True, eq=False)
class Mixture(Positions):
    """Training batches of several sources; `counts` are the windows of each in a block.

    Windows come in blocks, which are permuted each in its own way, so that within a batch sources
    come as if drawn by lot. Every source goes through its own epochs. Nothing but the counts says
    which source a window is of: no source's tokens depend on the weights.
    """

    parts: tuple[Any, ...]
    """each `Batches` or the like: `tokens_at`, `context`, `windows`"""
    counts: tuple[int, ...]
    batch_size: int
    seed: int = 0
    rows: tuple[int, int] | None = None
    shift: int = 0

    def __post_init__(self) -> None:
        if sum(self.counts) != BLOCK or len(self.counts) != len(self.parts):
            raise ValueError(f"counts={self.counts} of {len(self.parts)} sources are not {BLOCK}")
        self.check_rows()

    @property
    def context(self) -> int:
        return self.parts[0].context

    @property
    def windows(self) -> int:
        """Windows of all sources together; small sources come more often than once in so many."""
        return sum(part.windows for part in self.parts)

    @property
    def shares(self) -> tuple[float, ...]:
        """Of all windows, and so of all tokens."""
        return tuple(count / BLOCK for count in self.counts)

    def source_at(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which source a running index means, and its running index in there; both i64[...]."""
        ends = np.cumsum(self.counts)
        place, _ = shuffled(index, BLOCK, self.seed)
        which = np.searchsorted(ends, place, side="right")
        counts = np.asarray(self.counts, np.int64)[which]
        return which, index // BLOCK * counts + place - (ends[which] - counts)

    def tokens_at(self, index: np.ndarray) -> np.ndarray:
        which, own = self.source_at(index)
        found = np.empty((*index.shape, self.context + 1), np.int32)
        for at, part in enumerate(self.parts):
            mine = which == at
            if mine.any():
                found[mine] = part.tokens_at(own[mine])
        return found


def counts_of(weights: Sequence[float], whole: int = BLOCK) -> tuple[int, ...]:
    """Whole numbers that sum to `whole`, each at least one, nearest to the weights.

    The largest remainders are rounded up; of equal ones, the first.

    >>> counts_of([0.7, 0.3], 10), counts_of([1, 1, 1], 10), counts_of([1, 999], 10)
    ((7, 3), (4, 3, 3), (1, 9))
    """
    exact = [weight / sum(weights) * whole for weight in weights]
    counts = [max(1, int(each)) for each in exact]
    order = sorted(range(len(counts)), key=lambda at: (counts[at] - exact[at], at))
    at = 0
    while (missing := whole - sum(counts)) != 0:
        if missing > 0:
            counts[order[at % len(order)]] += 1
            at += 1
        else:
            counts[max(range(len(counts)), key=counts.__getitem__)] -= 1
    return tuple(counts)
