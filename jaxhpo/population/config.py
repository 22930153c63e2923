"""How members are executed: devices, chunks, unrolling. Set before JAX starts."""

import math
import os
import re
from dataclasses import astuple, dataclass, fields

from jaxhpo.errors import UsageError


@dataclass(frozen=True)
class Axes:
    """How many devices lie along each axis of a mesh, in the order of the mesh.

    `member` shares out the members; the others share one member: `data` and `fsdp` its batch,
    `fsdp` also its parameters and moments, `tensor` its heads and the width of its layers.
    """

    member: int = 1
    data: int = 1
    fsdp: int = 1
    tensor: int = 1

    @property
    def batch(self) -> int:
        """Parts of a member's batch."""
        return self.data * self.fsdp

    @property
    def inner(self) -> int:
        """Devices that share one member."""
        return self.data * self.fsdp * self.tensor

    @property
    def devices(self) -> int:
        return math.prod(astuple(self))

    def __str__(self) -> str:
        found = [f"{each.name}={getattr(self, each.name)}" for each in fields(self)]
        return ",".join(part for part in found if not part.endswith("=1")) or "member=1"


AXES = tuple(each.name for each in fields(Axes))
"""The axes of a mesh, in order."""


def parse_mesh(text: str) -> Axes:
    """Axes from `member=4,data=2`; what is left out is one. Raises UsageError.

    >>> parse_mesh("member=4, tensor=2")
    Axes(member=4, data=1, fsdp=1, tensor=2)
    """
    found: dict[str, int] = {}
    allowed = f"allowed: {', '.join(f'{name}=N' for name in AXES)}, joined by commas"
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\w+)\s*=\s*([1-9]\d{0,6})\s*", part)
        if match is None or match[1] not in AXES:
            raise UsageError(f"execution.mesh={text}: {part.strip()!r} is no axis; {allowed}")
        if match[1] in found:
            raise UsageError(f"execution.mesh={text} names {match[1]} twice; allowed: once")
        found[match[1]] = int(match[2])
    return Axes(**found)


@dataclass(frozen=True)
class ExecutionConfig:
    """Where and in what groups the members run; None means the default for the backend."""

    devices: int | None = None
    """devices to use (default: those of the mesh, else all; on a CPU one virtual device per core,
    no more than members)"""
    mesh: str | None = None
    """devices along each axis, such as member=4,data=2,fsdp=2,tensor=2: member shares out the
    members, data and fsdp a member's batch, fsdp also its parameters, tensor its heads and widths
    (default: members first, then data; an axis left out is 1)"""
    chunk: int | None = None
    """members at once on a device (default: 1 on a CPU, which is exact; else all that fit)"""
    sizes: int | None = None
    """population sizes compiled, each half the one before, for when trials are let go (default: as
    many as pay; one on a CPU)"""
    unroll: bool | None = None
    """unroll the layer loop (default: on a CPU up to 12 layers; else scan, to compile quickly)"""
    memory_gib: float | None = None
    """memory of a device to plan for, in GiB (default: what the device tells)"""
    accumulate: int = 1
    """micro-batches whose gradients make one step"""
    compilation_cache: bool = True
    """keep compiled programs in the user's cache folder, by jaxlib version and processor"""

    def __post_init__(self) -> None:
        for name in ("devices", "chunk", "sizes", "accumulate"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"execution.{name}={value}; allowed: 1 or more")
        if self.memory_gib is not None and not 0 < self.memory_gib < math.inf:
            raise UsageError(f"execution.memory_gib={self.memory_gib}; allowed: above 0")
        if self.axes is not None and self.devices not in (None, self.axes.devices):
            raise UsageError(
                f"execution.devices={self.devices} and execution.mesh={self.mesh}, which has "
                f"{self.axes.devices}; leave one of the two out"
            )

    @property
    def axes(self) -> Axes | None:
        """The mesh asked for, if one is."""
        return None if self.mesh is None else parse_mesh(self.mesh)


@dataclass(frozen=True)
class DistributedConfig:
    """Several processes that make one run, on one host or on many; JAX's own names."""

    auto: bool | None = None
    """join the processes of a launcher: Slurm, Open MPI, GKE, a TPU pod, Kubernetes (default: where
    its own variables say that there are several)"""
    coordinator_address: str | None = None
    """HOST:PORT that process 0 listens on, where no launcher says it"""
    num_processes: int | None = None
    """how many processes there are, where no launcher says it"""
    process_id: int | None = None
    """number of this process, from 0, where no launcher says it"""
    heartbeat_seconds: int = 100
    """a process without a sign of life for so long is lost: all others end, to be started again"""
    timeout_seconds: int = 300
    """how long processes wait for one another, to begin and between segments"""

    def __post_init__(self) -> None:
        least = {"num_processes": 1, "process_id": 0, "heartbeat_seconds": 1, "timeout_seconds": 1}
        for name, low in least.items():
            value = getattr(self, name)
            if value is not None and value < low:
                raise UsageError(f"distributed.{name}={value}; allowed: {low} or more")
        address = self.coordinator_address
        if address is not None and not address.rpartition(":")[2].isdecimal():
            raise UsageError(
                f"distributed.coordinator_address={address}; allowed: HOST:PORT, such as "
                "10.0.0.1:12345"
            )


def usable_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prepare_backend(execution: ExecutionConfig, members: int, processes: int = 1) -> None:
    """Sets what JAX reads when it starts: virtual CPU devices and the CPU's number of threads.

    Values that the user has set are left alone. Without effect once JAX's backend has started, and
    on accelerators. The thread count decides the last bits of CPU arithmetic, so it is pinned. Of
    several `processes` each makes its share of the devices.
    """
    axes, each = execution.axes, lambda count: -(-count // processes)
    asked = axes.devices if axes else execution.devices
    devices = each(asked) if asked else min(usable_cores(), each(members))
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_force_host_platform_device_count" not in flags:
        flag = f"--xla_force_host_platform_device_count={devices}"
        os.environ["XLA_FLAGS"] = f"{flags} {flag}".strip()
    os.environ.setdefault("PJRT_NPROC", str(usable_cores()))
