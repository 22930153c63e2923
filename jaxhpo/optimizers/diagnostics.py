"""What is measured of a step: norms by role and the effective learning rate."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxhpo.optimizers.components import role_norms, total
from jaxhpo.optimizers.hyperparams import OptimizerHyperparams

Array = jax.Array


def diagnose(
    numbers: OptimizerHyperparams, grads: Any, updates: Any, params: Any, state: Any, rate: Array
) -> dict[str, Array]:
    """Norms f32[] by role: `grad_norm/ROLE` before clipping, `update_norm/ROLE` of what is added
    to the parameters, `param_norm/ROLE` before that; and two learning rates that are called
    effective: `lr_per_norm` and, where there is a second moment, `lr_adam`.

    `lr_per_norm` is the rate over the norm of all parameters (D'Angelo et al. 2024, arXiv
    2310.04415); `lr_adam` the mean over parameters of rate / (sqrt(v) + eps), v not bias-corrected,
    as their code logs it.
    """
    trees = {"grad_norm": grads, "update_norm": updates, "param_norm": params}
    norms = {name: role_norms(tree) for name, tree in trees.items()}
    found = {f"{name}/{role}": norm for name, each in norms.items() for role, norm in each.items()}
    whole = jnp.sqrt(sum(norm**2 for norm in norms["param_norm"].values()))
    found["lr_per_norm"] = rate / whole
    second = jax.tree.leaves([tree for _, tree in optax.tree.get_all_with_path(state, "nu")])
    if second:
        steps = [1.0 / (jnp.sqrt(v) + numbers.of("eps")) for v in second]
        whole = sum(total(step, jnp.ones_like(step)) for step in steps)
        found["lr_adam"] = rate * whole / sum(v.size for v in second)
    return found
