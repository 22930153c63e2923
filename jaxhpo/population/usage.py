"""How much memory has been in use, as backend and system tell; nothing waits on the device."""

import sys

import jax


def device_peak_bytes() -> int | None:
    """Most bytes that one of this process's devices has held; None where the backend won't say."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    return max(
        (int(s["peak_bytes_in_use"]) for s in stats if "peak_bytes_in_use" in s), default=None
    )


def host_peak_bytes() -> int | None:
    """Most bytes of main memory that this process has held; None where the system won't say."""
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if sys.platform == "darwin" else int(peak) * 1024
