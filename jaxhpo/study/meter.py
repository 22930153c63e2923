"""How well a run uses its devices and its time: step time, tokens/s, MFU, goodput, memory.

All of it is arithmetic on the host about a segment that has come back, and is for people: no plan
depends on it, and a log without it replays as well.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxhpo.population.chips import Peak, peak_of
from jaxhpo.population.usage import device_peak_bytes, host_peak_bytes
from jaxhpo.record.history import History


@dataclass(frozen=True)
class Speed:
    """Of one segment; None is what is not known."""

    step_seconds: float | None
    """of one step of all members, probes' steps counted, evaluation included in the time"""
    tokens_per_second: float | None
    mfu: float | None
    """operations of training and probes over what the devices could do at their peak in the whole
    segment: evaluation and staging count as time and not as work"""
    goodput: float | None
    """seconds in segments that count over all since the run first began: compilation, waiting for
    checkpoints, restores, segments done again and the time between processes count for nothing"""
    device_bytes: int | None
    """the most that a device of this process held so far"""
    host_bytes: int | None
    """the same of the process itself"""


@dataclass
class Meter:
    """Measures one process's segments, in a run that may have begun in another.

    `began` is when the run first did, in seconds of the system's clock; `productive` are the
    seconds of segments that count so far.
    """

    peak: Peak | None = None
    devices: int = 1
    device_kind: str = ""
    began: float = field(default_factory=time.time)
    productive: float = 0.0
    now: Callable[[], float] = time.time

    def segment(self, seconds: float, steps: int, tokens: int, flops: float) -> Speed:
        """A segment of `seconds` in which the longest row made `steps`."""
        self.productive += seconds
        mfu = None
        if self.peak is not None and flops and seconds > 0:
            mfu = flops / (seconds * self.devices * self.peak.flops)
        return Speed(
            step_seconds=seconds / steps if steps else None,
            tokens_per_second=tokens / seconds if tokens and seconds > 0 else None,
            mfu=mfu,
            goodput=self.goodput(),
            device_bytes=device_peak_bytes(),
            host_bytes=host_peak_bytes(),
        )

    def goodput(self) -> float | None:
        """Up to now; None where the clock was set back behind the run's beginning."""
        elapsed = self.now() - self.began
        return min(1.0, self.productive / elapsed) if elapsed > 0 else None

    def resume(self, past: History, reports: int) -> None:
        """Goes on from the first so many reports of an earlier process; the rest is done again."""
        if past.start is not None:
            self.began = past.start["time"]
        self.productive = sum(float(event["seconds"]) for event in past.reports[:reports])

    def event(self) -> Mapping[str, Any]:
        """What a log says of the devices of this process, with the peak and who states it."""
        return {
            "device_kind": self.device_kind,
            "devices": self.devices,
            "peak_flops": None if self.peak is None else self.peak.flops,
            "peak_source": None if self.peak is None else self.peak.source,
        }

    def __str__(self) -> str:
        """The peak in one line; empty where there is none."""
        if self.peak is None:
            return ""
        return (
            f"MFU is of {self.peak.flops / 1e12:.4g} TFLOP/s on each of {self.devices} "
            f"device(s) ({self.peak.source})"
        )


def meter_of(config: Any, mesh: Any) -> Meter:
    """A meter for a config on the devices of a mesh."""
    device = mesh.devices.flat[0]
    model = getattr(config, "model", None)
    dtypes = ["float32" if model is None else model.compute_dtype]
    if "model.compute_dtype" in config.space:
        dtypes = ["float32", "bfloat16"]
    peak = peak_of(device.device_kind, dtypes, config.tracker.peak_flops)
    return Meter(peak, mesh.devices.size, device.device_kind)


def known(value: float | None) -> float:
    """A number for those who draw NaN as a gap."""
    return math.nan if value is None else value
