"""How a run is recorded; nothing here changes what is trained."""

import math
from dataclasses import dataclass
from typing import Literal

from jaxhpo.errors import UsageError


@dataclass(frozen=True)
class CheckpointConfig:
    """When the state is saved, and how many saves are kept."""

    every_seconds: float = 30.0
    """shortest time between two saves; 0 saves after every segment"""
    keep_last: int = 2
    """newest checkpoints kept; the end of the stable stage and keep_steps are kept for good"""
    keep_best: bool = True
    """also keep the checkpoint with the lowest held-out loss"""
    keep_steps: tuple[int, ...] = ()
    """steps whose state is saved and kept for good, to fork from"""

    def __post_init__(self) -> None:
        _at_least("checkpoint.every_seconds", self.every_seconds, 0.0)
        _at_least("checkpoint.keep_last", self.keep_last, 1)
        for step in self.keep_steps:
            _at_least("checkpoint.keep_steps", step, 1)


@dataclass(frozen=True)
class TrackerConfig:
    """Who is told how the run is going; the event log is always written."""

    console: Literal["auto", "bar", "lines", "off"] = "auto"
    """progress bar, or one line a segment; auto: a bar on a terminal, else lines"""
    diagnose_every: int = 10
    """steps between two measurements of norms by role and effective learning rates; 0: none"""
    peak_flops: float | None = None
    """operations a second of one device at its peak, which MFU is measured against (default: that
    of the known chip in the compute dtype; of a CPU none, and no MFU)"""
    wandb: Literal["off", "offline", "online"] = "off"
    """mirror to Weights & Biases; offline writes to the run directory; online falls back to it"""
    wandb_project: str = "jaxhpo"
    """project that the mirrored runs belong to"""
    wandb_per_trial: bool = False
    """one W&B run per trial, in a group, instead of one for the whole population"""
    wandb_fork: bool = False
    """begin a fork's mirrored run as a W&B fork of its parent's, on servers that can"""
    wandb_timeout: float = 10.0
    """seconds to wait for W&B at the start, and again at the end"""

    def __post_init__(self) -> None:
        _one_of("tracker.console", self.console, ("auto", "bar", "lines", "off"))
        _one_of("tracker.wandb", self.wandb, ("off", "offline", "online"))
        if not self.wandb_project.strip():
            raise UsageError("tracker.wandb_project is empty; give the project a name")
        _at_least("tracker.wandb_timeout", self.wandb_timeout, 1.0)
        _at_least("tracker.diagnose_every", self.diagnose_every, 0)
        if self.peak_flops is not None:
            _at_least("tracker.peak_flops", self.peak_flops, 1.0)


def _at_least(name: str, value: float, low: float) -> None:
    if not (math.isfinite(value) and value >= low):
        raise UsageError(f"{name}={value}; allowed: {low:g} or more")


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"{name}={value}; allowed: {', '.join(allowed)}")
