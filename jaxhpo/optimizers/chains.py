"""From traced hyperparameters to an optax chain, built inside the compiled step."""

import jax
import jax.numpy as jnp
import optax

from jaxhpo.optimizers.clipping import clipping
from jaxhpo.optimizers.config import OptimizerConfig
from jaxhpo.optimizers.decay import add_decay
from jaxhpo.optimizers.hyperparams import OptimizerHyperparams
from jaxhpo.optimizers.rules import RULES


def scale_by_learning_rate(schedule: optax.Schedule) -> optax.GradientTransformationExtraArgs:
    """Multiplies by minus the rate at the `step` given to `update`; there is no state."""

    def update(updates, state, params=None, *, step, **extra):
        del params, extra
        rate = jnp.asarray(schedule(step))
        return optax.tree.scale(-rate, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def in_float32(
    transform: optax.GradientTransformationExtraArgs,
) -> optax.GradientTransformationExtraArgs:
    """`transform` on gradients and parameters as float32, so that no state follows their dtype."""
    wide = lambda tree: jax.tree.map(_wide, tree)

    def update(updates, state, params=None, **extra):
        return transform.update(wide(updates), state, wide(params), **extra)

    return optax.GradientTransformationExtraArgs(lambda p: transform.init(wide(p)), update)


def build(
    config: OptimizerConfig, numbers: OptimizerHyperparams, schedule: optax.Schedule
) -> optax.GradientTransformationExtraArgs:
    """Clipping, the update rule, decay and learning rate. `update` takes `step=i32[]`.

    The state depends on none of the numbers: the chain may be rebuilt in every step with others.
    Updates are float32 whatever the parameters are. L2 is added after clipping, as in torch.
    """
    chain = [*clipping(numbers), RULES[config.kind](config, numbers)]
    chain.append(scale_by_learning_rate(schedule))
    if numbers.weight_decay is not None:
        place = {"l2": -2, "lr": -1}.get(config.convention, len(chain))
        chain.insert(place, add_decay(config, numbers, schedule))
    return in_float32(optax.chain(*chain))


def _wide(leaf: jax.Array) -> jax.Array:
    return leaf.astype(jnp.float32) if leaf.dtype == jnp.bfloat16 else leaf
