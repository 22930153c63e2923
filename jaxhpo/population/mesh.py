"""Devices as a mesh: members first, then what shares one member."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxhpo.errors import UsageError
from jaxhpo.population.config import AXES, Axes

MEMBER, DATA, FSDP, TENSOR = AXES

BATCH = (DATA, FSDP)
"""The axes that share a member's batch."""


def make_mesh(axes: Axes | int | None = None) -> Mesh:
    """A mesh of these axes over the first devices; a number is that many shards of members, and
    None all devices so. Raises UsageError where there are not as many, and where a process would
    have none.

    Devices keep JAX's order, so that those which share a member are neighbours.
    """
    found = jax.devices()
    asked = f"execution.mesh={axes}"
    if not isinstance(axes, Axes):
        axes = Axes(member=len(found) if axes is None else axes)
        asked = f"execution.devices={axes.devices}"
    if axes.devices > len(found):
        takes = "" if asked.startswith("execution.devices") else f" takes {axes.devices} devices"
        raise UsageError(f"{asked}{takes}; allowed: 1 to {len(found)}, those that JAX sees")
    taken = evenly(found, axes.devices)
    processes = {device.process_index for device in found}
    if idle := processes - {device.process_index for device in taken}:
        raise UsageError(
            f"{asked} leaves {len(idle)} of {len(processes)} processes without a device; allowed: "
            f"{len(processes)} devices or more, such as --mesh data={len(processes)}"
        )
    grid = np.asarray(taken).reshape(dataclasses.astuple(axes))
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def evenly(devices: Sequence[Any], count: int) -> list[Any]:
    """So many devices in their order, as many of each process as of any other, or one more."""
    if count == len(devices):
        return list(devices)
    numbers = sorted({device.process_index for device in devices})
    taken: list[Any] = []
    for rank, number in enumerate(numbers):
        share = count // len(numbers) + (rank < count % len(numbers))
        taken += [device for device in devices if device.process_index == number][:share]
    return taken if len(taken) == count else list(devices[:count])


def axes_of(mesh: Mesh) -> Axes:
    """The sizes of a mesh's axes."""
    return Axes(**{name: mesh.shape[name] for name in AXES})


def by_member(mesh: Mesh) -> NamedSharding:
    """Rows of a population, one group of rows to a shard, each row whole on its devices."""
    return NamedSharding(mesh, PartitionSpec(MEMBER))


def by_batch(mesh: Mesh, axis: int) -> NamedSharding:
    """An array whose dimension `axis` is the batch; every member shard holds a copy."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, BATCH))


def everywhere(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())
