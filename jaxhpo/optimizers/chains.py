"""From traced hyperparameters to an optax chain, built inside the compiled step."""

import jax.numpy as jnp
import optax

from jaxhpo.optimizers.adam import scale_by_adam
from jaxhpo.optimizers.config import OptimizerConfig
from jaxhpo.optimizers.hyperparams import OptimizerHyperparams
from jaxhpo.optimizers.masks import decayed


def scale_by_learning_rate(schedule: optax.Schedule) -> optax.GradientTransformationExtraArgs:
    """Multiplies by minus the rate at the `step` given to `update`; there is no state."""

    def update(updates, state, params=None, *, step, **extra):
        del params, extra
        rate = jnp.asarray(schedule(step))
        return optax.tree.scale(-rate, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def _adamw(config: OptimizerConfig, numbers: OptimizerHyperparams) -> optax.GradientTransformation:
    rest = (numbers.one_minus_beta1, numbers.one_minus_beta2, numbers.eps)
    return optax.chain(
        scale_by_adam(*rest, mu_dtype=config.moment_dtype),
        optax.add_decayed_weights(numbers.weight_decay, mask=decayed),
    )


OPTIMIZERS = {"adamw": _adamw}
"""Update rules by name: (config, traced numbers) -> transformation before the learning rate."""


def build(
    config: OptimizerConfig, numbers: OptimizerHyperparams, schedule: optax.Schedule
) -> optax.GradientTransformationExtraArgs:
    """Clipping, the update rule, the learning rate. `update` takes `step=i32[]`.

    The state depends on none of the numbers: the chain may be rebuilt in every step with others.
    """
    clip = () if numbers.clip_norm is None else (optax.clip_by_global_norm(numbers.clip_norm),)
    return optax.chain(
        *clip, OPTIMIZERS[config.kind](config, numbers), scale_by_learning_rate(schedule)
    )
