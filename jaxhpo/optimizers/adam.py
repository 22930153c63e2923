"""Adam's scaling with traced betas."""

import chex
import jax
import jax.numpy as jnp
import optax


def scale_by_adam(
    one_minus_b1: chex.Numeric,
    one_minus_b2: chex.Numeric,
    eps: chex.Numeric,
    mu_dtype: str = "float32",
) -> optax.GradientTransformation:
    """`optax.scale_by_adam` that takes 1 - beta, so that traced float32 betas lose nothing.

    optax forms 1 - beta itself; from a traced float32 0.999 that is off by 1e-5. State, order of
    operations and bias correction are optax's. Source: Kingma and Ba 2015 (arXiv 1412.6980).
    """

    def init(params: optax.Params) -> optax.ScaleByAdamState:
        mu = jax.tree.map(lambda p: jnp.zeros(p.shape, mu_dtype), params)
        nu = jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.float32), params)
        return optax.ScaleByAdamState(jnp.zeros([], jnp.int32), mu, nu)

    def update(grads, state, params=None):
        del params
        blend = lambda old, new, weight: (1.0 - weight) * old + weight * new
        mu = jax.tree.map(lambda m, g: blend(m.astype(g.dtype), g, one_minus_b1), state.mu, grads)
        nu = jax.tree.map(lambda v, g: blend(v, g * g, one_minus_b2), state.nu, grads)
        count = optax.safe_increment(state.count)
        # 1 - beta^t, without raising a rounded beta to the t
        correction = lambda rest: -jnp.expm1(count * jnp.log1p(-rest))
        first, second = correction(one_minus_b1), correction(one_minus_b2)
        updates = jax.tree.map(lambda m, v: (m / first) / (jnp.sqrt(v / second) + eps), mu, nu)
        mu = jax.tree.map(lambda m: m.astype(mu_dtype), mu)
        return updates, optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(init, update)
