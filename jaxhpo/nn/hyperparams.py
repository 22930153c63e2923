"""This room's slice of the traced hyperparameters. None means the feature is compiled out."""

from dataclasses import dataclass

import jax


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Dropout:
    """Rates f32[], or f32[L] (not `embedding`); None where neither config nor space has one."""

    embedding: jax.Array | None = None
    attention: jax.Array | None = None
    residual: jax.Array | None = None
    mlp: jax.Array | None = None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class HeadTerms:
    """Rate f32[] of dropout on what a head reads; None where neither config nor space has one."""

    dropout: jax.Array | None = None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LossTerms:
    """Weights f32[] of the terms added to cross-entropy in training; None where unused."""

    label_smoothing: jax.Array | None = None
    z_loss: jax.Array | None = None
