"""The rows of each batch that this process reads: those that its own devices work on."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxhpo.population.mesh import by_batch


def batches_of(train: Any, mesh: Any) -> Callable[[int, int], Any]:
    """`batch_at` of training batches, of which this process reads its own rows only.

    The arrays are those of whole batches [S, B, ...] all the same, and the rows of others, which no
    device here looks at, are zeros: where the batch is split over hosts each reads its own shard.
    """
    start, stop = rows_here(mesh, train.batch_size)
    if not hasattr(train, "for_rows") or (start, stop) == (0, train.batch_size):
        return train.batch_at
    return spread(train.for_rows(start, stop).batch_at, train.batch_size, start)


def spread(batch_at: Callable[[int, int], Any], batch_size: int, start: int) -> Callable[..., Any]:
    """Batches of some rows, from `start` on, as whole ones with zeros around them."""

    def whole(step: int, steps: int) -> Any:
        def around(leaf: np.ndarray) -> np.ndarray:
            found = np.zeros((leaf.shape[0], batch_size, *leaf.shape[2:]), leaf.dtype)
            found[:, start : start + leaf.shape[1]] = leaf
            return found

        return jax.tree.map(around, batch_at(step, steps))

    return whole


def rows_here(mesh: Any, batch_size: int) -> tuple[int, int]:
    """First row that a device of this process has, and the one after the last."""
    places = by_batch(mesh, 0).addressable_devices_indices_map((batch_size,)).values()
    bounds = [place[0].indices(batch_size) for place in places if place]
    if not bounds:
        return 0, batch_size
    return min(start for start, _, _ in bounds), max(stop for _, stop, _ in bounds)
