"""Weight decay: what the coefficient is multiplied by, over which steps, and for which tensors."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxhpo.errors import UsageError
from jaxhpo.optimizers.config import Decay, OptimizerConfig
from jaxhpo.optimizers.hyperparams import OptimizerHyperparams
from jaxhpo.optimizers.masks import decay_shares, named, renamed


def add_decay(
    config: OptimizerConfig, numbers: OptimizerHyperparams, schedule: optax.Schedule
) -> optax.GradientTransformationExtraArgs:
    """Adds the coefficient of this step times the weights; there is no state.

    Its place in the chain makes the convention: `l2` stands before the update rule, `lr` between
    the rule and the learning rate, `schedule` and `constant` behind the rate and negative. Source
    of the first three: Loshchilov and Hutter 2019 (arXiv 1711.05101).
    """

    def update(updates: Any, state: Any, params: Any = None, *, step: Any, **extra: Any):
        del extra
        factor = coefficient(config, numbers, jnp.asarray(schedule(step)), step)
        if config.convention == "schedule":
            factor = -factor * _share(jnp.asarray(schedule(step)), numbers.of("peak_lr"))
        elif config.convention == "constant":
            factor = -factor
        leaves, weights = named(updates), named(params)
        for name, share in decay_shares(config, leaves).items():
            if share:
                mine = factor if share == 1.0 else share * factor
                leaves[name] = leaves[name] + mine * weights[name]
        return renamed(leaves, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def coefficient(
    config: OptimizerConfig, numbers: OptimizerHyperparams, rate: jax.Array, step: Any
) -> jax.Array:
    """The coefficient f32[] at a step. In proportion to the rate it is AdamC's (2506.02285)."""
    start, shape = numbers.of("weight_decay"), config.decay_schedule
    if shape == "constant":
        return start
    if shape == "lr":
        return start * _share(rate, numbers.of("peak_lr"))
    done = jnp.clip(step / jnp.maximum(numbers.of("run_steps"), 1.0), 0.0, 1.0)
    if shape == "cosine":
        done = jnp.sin(jnp.pi / 2 * done) ** 2
    return start * (1.0 - done) + numbers.of("weight_decay_end") * done


def convert_decay(
    config: OptimizerConfig, decay: Decay, *, peak_lr: float, rate: float | None = None
) -> OptimizerConfig:
    """The config with its decay stated in another convention, for the same trajectory.

    `lr` and `schedule` are the same thing at every schedule with this peak. `constant` equals them
    only while the learning rate is `rate`, which must be given. L2 is the same as `lr` for SGD
    without momentum and has no equal elsewhere. Raises UsageError where there is none.
    """
    before, asked = config.convention, f"optimizer.decay={decay}"
    if before == decay:
        return config
    if "l2" in (before, decay) and (config.kind != "sgd" or config.inertia > 0):
        raise UsageError(f"{asked}: only for sgd without momentum does L2 equal a decoupled decay")
    if "constant" in (before, decay) and rate is None:
        raise UsageError(f"{asked}: a constant decay equals another at one learning rate; give it")
    # what each convention multiplies its coefficient by; any rate does where it cancels
    rate = peak_lr if rate is None else rate
    unit = {"lr": rate, "l2": rate, "schedule": rate / peak_lr, "constant": 1.0}
    ratio = unit[before] / unit[decay]
    return replace(
        config,
        decay=decay,
        weight_decay=config.coefficient * ratio,
        weight_decay_end=config.weight_decay_end * ratio,
    )


def _share(rate: jax.Array, peak: jax.Array) -> jax.Array:
    """The schedule's shape, 0 to 1; a peak of zero has none."""
    return jnp.where(peak > 0, rate / jnp.where(peak > 0, peak, 1.0), 0.0)
