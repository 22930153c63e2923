"""Which optimizer (static) and its numbers (traced)."""

import math
from dataclasses import dataclass
from typing import Literal

from jaxhpo.errors import UsageError

TRACED = frozenset({"beta1", "beta2", "eps", "weight_decay", "clip_norm"})
"""Fields that may change without a new program."""


@dataclass(frozen=True)
class OptimizerConfig:
    """The update rule and its hyperparameters."""

    kind: Literal["adamw"] = "adamw"
    """update rule"""
    beta1: float = 0.9
    """decay of the first moment"""
    beta2: float = 0.95
    """decay of the second moment"""
    eps: float = 1e-8
    """added to the root of the second moment"""
    weight_decay: float = 0.1
    """decoupled decay, times the learning rate as in torch and optax; spares norms and biases"""
    clip_norm: float = 1.0
    """largest global norm of the gradient; inf switches clipping off"""
    moment_dtype: Literal["float32", "bfloat16"] = "float32"
    """of the first moment; the second is float32"""

    def __post_init__(self) -> None:
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"optimizer.{name}={getattr(self, name)}; allowed: 0 <= beta < 1")
        for name in ("eps", "weight_decay"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise UsageError(f"optimizer.{name}={value}; allowed: a finite number, 0 or more")
        if not self.clip_norm > 0:
            raise UsageError(
                f"optimizer.clip_norm={self.clip_norm}; allowed: above 0, or inf for no clipping"
            )
