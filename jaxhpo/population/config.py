"""How members are executed: devices, chunks, unrolling. Set before JAX starts."""

import os
from dataclasses import dataclass

from jaxhpo.errors import UsageError


@dataclass(frozen=True)
class ExecutionConfig:
    """Where and in what groups the members run; None means the default for the backend."""

    devices: int | None = None
    """devices to use (default: all; on a CPU one virtual device per core, no more than members)"""
    data: int = 1
    """devices that share each member's batch; the others share out the members"""
    chunk: int | None = None
    """members at once on a device (default: 1 on a CPU, which is exact; else all that fit)"""
    sizes: int | None = None
    """population sizes compiled, each half the one before, for when trials are let go (default: as
    many as pay; one on a CPU)"""
    unroll: bool | None = None
    """unroll the layer loop (default: on a CPU up to 12 layers; else scan, to compile quickly)"""
    accumulate: int = 1
    """micro-batches whose gradients make one step"""
    compilation_cache: bool = True
    """keep compiled programs in the user's cache folder, by jaxlib version and processor"""

    def __post_init__(self) -> None:
        for name in ("devices", "data", "chunk", "sizes", "accumulate"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"execution.{name}={value}; allowed: 1 or more")


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
    each = lambda count: -(-count // processes)
    mine = min(usable_cores(), each(members)) * execution.data
    devices = each(execution.devices) if execution.devices else mine
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_force_host_platform_device_count" not in flags:
        flag = f"--xla_force_host_platform_device_count={devices}"
        os.environ["XLA_FLAGS"] = f"{flags} {flag}".strip()
    os.environ.setdefault("PJRT_NPROC", str(usable_cores()))
