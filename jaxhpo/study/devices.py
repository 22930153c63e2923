"""Which devices a run uses, and how members and batches lie on them."""

from collections.abc import Callable

import jax

from jaxhpo.config.run import FunctionRun, Run
from jaxhpo.population import memory
from jaxhpo.population.config import Axes


def axes_for(config: Run | FunctionRun, members: int) -> Axes:
    """The mesh for so many members: the one asked for, else as many shards of members as devices
    can be used.

    On a CPU, where devices are virtual, there is one shard where members share a base, which every
    shard would hold a copy of. On accelerators a member that one device can't hold is split over as
    few as can, and the devices that are left share the batches, as far as these split. So they do
    on CPUs where there are fewer members than processes.
    """
    execution = config.execution
    if execution.axes is not None:
        return execution.axes
    on_cpu = jax.default_backend() == "cpu"
    alone = jax.process_count() == 1
    if execution.devices is None and on_cpu and alone and memory.adapter_of(config) is not None:
        return Axes()
    there = execution.devices or len(jax.devices())
    if isinstance(config, FunctionRun):
        return Axes(member=execution.devices or min(there, max(members, jax.process_count())))
    if on_cpu and members >= jax.process_count():
        return Axes(member=execution.devices or min(there, members))
    limit = None if on_cpu else memory.device_limit(config)
    fsdp = 1 if limit is None else memory.smallest_fsdp(config, limit, there) or 1
    fsdp = min(n for n in range(fsdp, there + 1) if there % n == 0)
    member = largest_divisor(there // fsdp, lambda n: n <= members)
    batch = config.data.batch_size // execution.accumulate // fsdp
    data = largest_divisor(there // fsdp // member, lambda n: batch % n == 0)
    return Axes(member=member, data=data, fsdp=fsdp)


def largest_divisor(size: int, fits: Callable[[int], bool]) -> int:
    """The largest divisor of a number that fits; 1 if none does."""
    return max((n for n in range(1, size + 1) if size % n == 0 and fits(n)), default=1)
