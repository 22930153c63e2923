"""This room's slice of the traced hyperparameters."""

import math
from collections.abc import Collection
from dataclasses import dataclass, field

import jax
import numpy as np

from jaxhpo.errors import UsageError
from jaxhpo.optimizers.config import NUMBERS, ROLES, TRACED, OptimizerConfig


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class OptimizerHyperparams:
    """Numbers of an optimizer, f32[] each; None means compiled out.

    Betas and momentum are carried as 1 - beta: float32 has no room for the difference of two
    numbers near one. `clip_roles` has the roles that are clipped. `peak_lr` and `run_steps` are
    there where the decay is stated in terms of them.
    """

    one_minus_beta1: jax.Array | None = None
    one_minus_beta2: jax.Array | None = None
    one_minus_momentum: jax.Array | None = None
    eps: jax.Array | None = None
    muon_rms: jax.Array | None = None
    muon_adam_lr: jax.Array | None = None
    adafactor_exponent: jax.Array | None = None
    adafactor_eps: jax.Array | None = None
    adafactor_clip: jax.Array | None = None
    weight_decay: jax.Array | None = None
    weight_decay_end: jax.Array | None = None
    peak_lr: jax.Array | None = None
    run_steps: jax.Array | None = None
    clip_value: jax.Array | None = None
    clip_norm: jax.Array | None = None
    clip_tensor: jax.Array | None = None
    clip_roles: dict[str, jax.Array] = field(default_factory=dict)

    def of(self, name: str) -> jax.Array:
        """A number that must be there. Raises ValueError where it was compiled out."""
        if (value := getattr(self, name)) is None:
            raise ValueError(f"{name} was compiled out; `lower` it with the config that is built")
        return value


def present(config: OptimizerConfig, searched: Collection[str] = ()) -> frozenset[str]:
    """The fields that exist as numbers on the device: the rule's own and what is in use.

    `searched` are the fields that a search changes: they exist whatever the config says. Raises
    UsageError for one that has no effect.
    """
    searched = TRACED & frozenset(searched)
    found = {name for name in NUMBERS[config.kind] if name in searched or _in_use(config, name)}
    moves = config.decay_schedule in ("linear", "cosine")
    ends = {"weight_decay_end"} if moves else set()
    if (
        searched & {"weight_decay", *ends}
        or config.coefficient
        or (ends and config.weight_decay_end)
    ):
        found |= {"weight_decay", *ends}
    found |= {
        name
        for name in ("clip_value", "clip_norm", "clip_tensor")
        if name in searched or math.isfinite(getattr(config, name))
    }
    found |= {f"clip_role_{role}" for role in ROLES if _clips(config, role, searched)}
    if any(name.startswith("clip_role") for name in found) and "clip_tensor" in found:
        raise UsageError(
            "optimizer.clip_tensor and optimizer.clip_role are two rules for one tensor; "
            "allowed: one of them"
        )
    shared = {"clip_role"} if any(getattr(config, f"clip_role_{r}") is None for r in ROLES) else ()
    if idle := sorted(searched - found - set(shared)):
        raise UsageError(
            f"space: optimizer.{idle[0]} has no effect with optimizer.kind={config.kind}, "
            f"decay_schedule={config.decay_schedule}; search something else"
        )
    return frozenset(found)


def lower(
    config: OptimizerConfig,
    which: Collection[str] | None = None,
    *,
    peak_lr: float | None = None,
    steps: float | None = None,
) -> OptimizerHyperparams:
    """The config's numbers as float32, those in `which` (default: `present(config)`).

    `peak_lr` and `steps` are the schedule's peak and the run's length: a decay by the schedule's
    shape needs the first, one that moves over the run the second, and ValueError says so.
    """
    which = present(config) if which is None else frozenset(which)
    decays = "weight_decay" in which
    by_shape = decays and (config.convention == "schedule" or config.decay_schedule == "lr")
    moves = "weight_decay_end" in which
    if (by_shape and peak_lr is None) or (moves and steps is None):
        raise ValueError(f"this decay needs {'peak_lr' if by_shape else 'steps'}")
    values = {
        "one_minus_beta1": 1.0 - config.beta1 if "beta1" in which else None,
        "one_minus_beta2": 1.0 - config.beta2 if "beta2" in which else None,
        "one_minus_momentum": 1.0 - config.inertia if "momentum" in which else None,
        "weight_decay": config.coefficient if decays else None,
        "peak_lr": peak_lr if by_shape else None,
        "run_steps": steps if moves else None,
    }
    for name in _PLAIN:
        values[name] = getattr(config, name) if name in which else None
    return OptimizerHyperparams(
        **{name: None if value is None else np.float32(value) for name, value in values.items()},
        clip_roles={
            role: np.float32(config.threshold(role))
            for role in ROLES
            if f"clip_role_{role}" in which
        },
    )


_PLAIN = (
    "eps",
    "muon_rms",
    "muon_adam_lr",
    "adafactor_exponent",
    "adafactor_eps",
    "adafactor_clip",
    "weight_decay_end",
    "clip_value",
    "clip_norm",
    "clip_tensor",
)


def _in_use(config: OptimizerConfig, name: str) -> bool:
    """Whether a number of the rule does anything at the config's value."""
    if name == "momentum":
        return config.kind == "muon" or config.inertia > 0
    if name == "muon_rms":
        return config.muon_rms is not None
    return name != "adafactor_clip" or math.isfinite(config.adafactor_clip)


def _clips(config: OptimizerConfig, role: str, searched: frozenset[str]) -> bool:
    own = f"clip_role_{role}"
    if own in searched or math.isfinite(config.threshold(role)):
        return True
    return getattr(config, own) is None and "clip_role" in searched
