"""This room's slice of the traced hyperparameters."""

import math
from dataclasses import dataclass

import jax
import numpy as np

from jaxhpo.optimizers.config import OptimizerConfig


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class OptimizerHyperparams:
    """Numbers of an optimizer, f32[] each; None means compiled out.

    Betas are carried as 1 - beta: float32 has no room for the difference of two numbers near one.
    """

    one_minus_beta1: jax.Array
    one_minus_beta2: jax.Array
    eps: jax.Array
    weight_decay: jax.Array
    clip_norm: jax.Array | None


def lower(config: OptimizerConfig, clip: bool | None = None) -> OptimizerHyperparams:
    """The config's numbers as float32. `clip` keeps or drops clipping (default: if finite)."""
    clip = math.isfinite(config.clip_norm) if clip is None else clip
    return OptimizerHyperparams(
        one_minus_beta1=np.float32(1.0 - config.beta1),
        one_minus_beta2=np.float32(1.0 - config.beta2),
        eps=np.float32(config.eps),
        weight_decay=np.float32(config.weight_decay),
        clip_norm=np.float32(config.clip_norm) if clip else None,
    )
