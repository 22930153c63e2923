"""What a learning-rate schedule is made of; every value may differ between members."""

import math
from dataclasses import dataclass
from typing import Literal

from jaxhpo.errors import UsageError

TRACED = frozenset(
    {"kind", "peak_lr", "warmup_steps", "decay_start", "decay_steps", "decay_shape", "floor"}
)
"""Fields that may change without a new program: kinds and shapes too, as all lower to one form."""


@dataclass(frozen=True)
class ScheduleConfig:
    """Learning rate over steps: a linear warm-up, then what `kind` says. None: from `steps`."""

    kind: Literal["constant", "cosine", "wsd"] = "wsd"
    """constant; cosine decay after the warm-up; or warm-up, stable, decay"""
    peak_lr: float = 3e-3
    """highest learning rate"""
    warmup_steps: float = 50.0
    """steps of linear warm-up from zero; the first update then has rate zero, as in optax"""
    decay_start: float | None = None
    """step at which the decay of wsd begins (default: steps - decay_steps)"""
    decay_steps: float | None = None
    """length of the decay (default: wsd a fifth of steps, cosine all after the warm-up)"""
    decay_shape: Literal["linear", "cosine", "1-sqrt"] = "linear"
    """how wsd falls from the peak to the floor"""
    floor: float = 0.0
    """learning rate after the decay, as a share of the peak"""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.peak_lr) and self.peak_lr >= 0):
            raise UsageError(f"schedule.peak_lr={self.peak_lr}; allowed: a finite rate, 0 or more")
        if not 0 <= self.floor <= 1:
            raise UsageError(f"schedule.floor={self.floor} is a share of the peak; allowed: 0 to 1")
        for name in ("warmup_steps", "decay_start", "decay_steps"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise UsageError(f"schedule.{name}={value}; allowed: a number of steps, 0 or more")

    def decay(self, steps: int) -> tuple[float, float]:
        """Start and length of the decay in a run of `steps`. UsageError where they do not fit."""
        if self.warmup_steps > steps:
            raise UsageError(
                f"schedule.warmup_steps={self.warmup_steps:g} is longer than the run: steps={steps}"
            )
        if self.kind == "cosine":
            start = self.warmup_steps
            length = steps - start if self.decay_steps is None else self.decay_steps
            return start, length
        length = self.decay_steps
        if length is None:
            length = steps // 5 if self.decay_start is None else steps - self.decay_start
        start = steps - length if self.decay_start is None else self.decay_start
        if self.kind == "wsd" and start < self.warmup_steps:
            raise UsageError(
                f"schedule.decay_start={start:g} comes before the end of "
                f"schedule.warmup_steps={self.warmup_steps:g}; lower decay_steps or warmup_steps"
            )
        return start, length
