"""Devices as a mesh: members first, then the batch of each member."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxhpo.errors import UsageError

MEMBER, DATA = "member", "data"

AXES = (MEMBER, DATA)
"""All mesh axes in order. Axes that split one member's parameters come behind these."""


def make_mesh(devices: int | None = None, data: int = 1) -> Mesh:
    """A mesh of `devices` (default: all) with `data` of them to each member's batch."""
    found = jax.devices()
    count = len(found) if devices is None else devices
    if count > len(found):
        raise UsageError(
            f"execution.devices={count}; allowed: 1 to {len(found)}, those that JAX sees"
        )
    if count % data:
        raise UsageError(f"execution.data={data} does not divide the {count} devices")
    grid = np.asarray(evenly(found, count)).reshape(count // data, data)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def evenly(devices: Sequence[Any], count: int) -> list[Any]:
    """So many devices in their order, as many of each process as of any other, or one more."""
    numbers = sorted({device.process_index for device in devices})
    taken: list[Any] = []
    for rank, number in enumerate(numbers):
        share = count // len(numbers) + (rank < count % len(numbers))
        taken += [device for device in devices if device.process_index == number][:share]
    return taken


def by_member(mesh: Mesh) -> NamedSharding:
    """Rows of a population, one group of rows to a shard."""
    return NamedSharding(mesh, PartitionSpec(MEMBER))


def by_batch(mesh: Mesh, axis: int) -> NamedSharding:
    """An array whose dimension `axis` is the batch; every member shard holds a copy."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, DATA))


def everywhere(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())
