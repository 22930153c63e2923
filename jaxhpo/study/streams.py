"""Streams of training batches: one for each step at which rows start."""

from collections.abc import Iterable, Sequence

import numpy as np

from jaxhpo.search.plan import Plan


def layout_of(streams: int) -> int:
    """Streams of batches that are compiled for: the next power of two."""
    return 1 << (max(streams, 1) - 1).bit_length()


def lengths_of(plan: Plan, starts: Sequence[int]) -> dict[int, int]:
    """Start of each stream of batches -> the most steps that a row makes on it."""
    return longest((start, row.steps) for start, row in zip(starts, plan.assignments, strict=True))


def longest(pairs: Iterable[tuple[int, int]]) -> dict[int, int]:
    """Start of each stream -> the most steps, of pairs of the two."""
    found: dict[int, int] = {}
    for start, steps in pairs:
        found[start] = max(found.get(start, 0), steps)
    return dict(sorted(found.items()))


def padded(leaves: Sequence[np.ndarray], layout: int, steps: int) -> np.ndarray:
    """Streams of several lengths as one array [U, S, ...] with zeros behind."""
    whole = np.zeros((layout, steps, *leaves[0].shape[1:]), leaves[0].dtype)
    for index, leaf in enumerate(leaves):
        whole[index, : len(leaf)] = leaf
    return whole
