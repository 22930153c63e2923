"""What the host tells the device about each place: arrays [P], padded to the shards."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import jax
import numpy as np

PARTS = ("params", "moments", "step")
"""Parts of a member that a copy may take over; the rest is newborn."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Rows:
    """One row a place. `steps` and `probe` are lengths; a row of zero steps is left as it is.

    `parents` i32 is the place to copy from, `newborn` bool asks for a fresh member instead, `keep`
    bool[P, 3] names the PARTS that a copy takes over; `seeds` u32 are the trials'; `streams` i32
    says which of the staged batches is whose.
    """

    hyperparams: Any
    seeds: np.ndarray
    steps: np.ndarray
    probe: np.ndarray
    parents: np.ndarray
    newborn: np.ndarray
    keep: np.ndarray
    streams: np.ndarray


def make_rows(
    hyperparams: Any,
    seeds: Sequence[int],
    steps: Sequence[int],
    probe: Sequence[int] | None = None,
    parents: Sequence[int] | None = None,
    newborn: Sequence[bool] | None = None,
    keep: np.ndarray | None = None,
    streams: Sequence[int] | None = None,
) -> Rows:
    """Rows of numpy arrays; what is left out means: no probe, carry on, keep all, one stream."""
    count = len(seeds)
    integers = lambda values, default: np.asarray(default if values is None else values, np.int32)
    return Rows(
        hyperparams=hyperparams,
        seeds=np.asarray(seeds, np.uint32),
        steps=integers(steps, None),
        probe=integers(probe, np.zeros(count)),
        parents=integers(parents, np.arange(count)),
        newborn=np.zeros(count, bool) if newborn is None else np.asarray(newborn, bool),
        keep=np.ones((count, len(PARTS)), bool) if keep is None else np.asarray(keep, bool),
        streams=integers(streams, np.zeros(count)),
    )


def named(rows: Rows) -> dict[str, list]:
    """The values of each array of rows, by its path, as Python numbers."""
    leaves = jax.tree_util.tree_leaves_with_path(rows)
    name = lambda path: jax.tree_util.keystr(path, simple=True, separator=".")
    return {name(path): np.asarray(leaf).tolist() for path, leaf in leaves}


def padded(rows: Rows, size: int) -> Rows:
    """The rows with idle ones behind, up to `size`: no steps, no probe, each its own parent."""
    count = len(rows.seeds)
    extra = size - count
    if extra < 0:
        raise ValueError(f"{count} rows do not fit a population of {size}")
    repeat = lambda x: np.concatenate([x, np.repeat(x[:1], extra, axis=0)])
    idle = {
        "steps": np.concatenate([rows.steps, np.zeros(extra, np.int32)]),
        "probe": np.concatenate([rows.probe, np.zeros(extra, np.int32)]),
        "parents": np.concatenate([rows.parents, np.arange(count, size, dtype=np.int32)]),
        "newborn": np.concatenate([rows.newborn, np.zeros(extra, bool)]),
    }
    return Rows(
        **{
            field.name: idle[field.name]
            if field.name in idle
            else jax.tree.map(repeat, getattr(rows, field.name))
            for field in fields(rows)
        }
    )
