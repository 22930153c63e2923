"""Gradient clipping by value, by global norm, and by the norm of each component."""

from collections.abc import Callable, Mapping
from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax

from jaxhpo.optimizers.components import Piece, joined, pieces
from jaxhpo.optimizers.hyperparams import OptimizerHyperparams

Array = jax.Array

Scaled = list[tuple[Piece, Array]]
"""One piece of each component, and whether it was scaled down: bool[], or bool[L] by layer."""

EPS = 1e-6
"""Added to a component's norm, as in torch; the global norm follows optax, which adds nothing."""


def clip_by_tensor_norm(threshold: chex.Numeric) -> optax.GradientTransformation:
    """Scales each tensor's gradient to a norm of `threshold` at most: g min(1, c / (|g| + 1e-6)).

    A weight and its bias are two tensors, a layer of the stacked blocks is one at a time, and of a
    fused projection query, key and value are three. Source: component-wise gradient norm clipping
    (Yang and Ma 2022, arXiv 2210.10325) as its authors' code does it.
    """
    return _stateless(lambda grads: _by_tensor(threshold, grads)[0])


def clip_by_role_norm(thresholds: Mapping[str, chex.Numeric]) -> optax.GradientTransformation:
    """Scales the gradient of all that has one role in one layer to its role's threshold at most.

    Weight and bias count together. Roles without a threshold are left alone.
    """
    return _stateless(lambda grads: _by_role(thresholds, grads)[0])


def clipping(numbers: OptimizerHyperparams) -> list[optax.GradientTransformation]:
    """The kinds of clipping in use, in order: by value, by component, by global norm."""
    chain = []
    if numbers.clip_value is not None:
        chain.append(optax.clip(numbers.clip_value))
    if numbers.clip_tensor is not None:
        chain.append(clip_by_tensor_norm(numbers.clip_tensor))
    if numbers.clip_roles:
        chain.append(clip_by_role_norm(numbers.clip_roles))
    if numbers.clip_norm is not None:
        chain.append(optax.clip_by_global_norm(numbers.clip_norm))
    return chain


def clipped(numbers: OptimizerHyperparams, grads: Any) -> dict[str, Array]:
    """Share f32[] of each component that this step's clipping changes, by `clipped/ROLE`.

    1 where the gradient of every tensor or layer of the role is scaled down; `clipped/value` and
    `clipped/global` are 1 where clipping by value or by global norm changes anything. What is
    computed here the chain computes too, and the compiler merges the two.
    """
    found: dict[str, Array] = {}
    if numbers.clip_value is not None:
        largest = [jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(grads)]
        found["clipped/value"] = jnp.max(jnp.stack(largest)) > numbers.clip_value
        grads = optax.tree.clip(grads, -numbers.clip_value, numbers.clip_value)
    flags: dict[str, list[Array]] = {}
    scaled: Scaled = []
    if numbers.clip_tensor is not None:
        grads, scaled = _by_tensor(numbers.clip_tensor, grads)
    elif numbers.clip_roles:
        grads, scaled = _by_role(numbers.clip_roles, grads)
    for piece, flag in scaled:
        flags.setdefault(f"clipped/{piece.role}", []).append(jnp.atleast_1d(flag))
    found |= {name: jnp.mean(jnp.concatenate(each)) for name, each in flags.items()}
    if numbers.clip_norm is not None:
        found["clipped/global"] = ~(optax.tree.norm(grads) < numbers.clip_norm)
    return {name: share.astype(jnp.float32) for name, share in found.items()}


def _by_tensor(threshold: chex.Numeric, grads: Any) -> tuple[Any, Scaled]:
    return _scaled(grads, lambda piece: piece.label, lambda piece: threshold)


def _by_role(thresholds: Mapping[str, chex.Numeric], grads: Any) -> tuple[Any, Scaled]:
    return _scaled(
        grads,
        lambda piece: f"{piece.place}:{piece.role}",
        lambda piece: thresholds.get(piece.role),
    )


def _scaled(
    grads: Any,
    component: Callable[[Piece], str],
    threshold: Callable[[Piece], chex.Numeric | None],
) -> tuple[Any, Scaled]:
    """The gradient with each component scaled down, and where it was."""
    parts = pieces(grads)
    members: dict[str, list[Piece]] = {}
    for piece in parts:
        if threshold(piece) is not None:
            members.setdefault(component(piece), []).append(piece)
    factors = {}
    for name, mine in members.items():
        limit = jnp.asarray(threshold(mine[0]))
        norm = jnp.sqrt(sum(piece.squares() for piece in mine))
        factors[name] = jnp.minimum(limit / (norm + EPS), 1.0)

    def scale(piece: Piece) -> Piece:
        factor = factors.get(component(piece))
        if factor is None:
            return piece
        wide = jnp.reshape(factor, factor.shape + (1,) * (piece.values.ndim - factor.ndim))
        return piece._replace(values=(piece.values * wide).astype(piece.values.dtype))

    flags = [(members[name][0], ~(factor >= 1.0)) for name, factor in factors.items()]
    return joined([scale(piece) for piece in parts], grads), flags


def _stateless(function: Callable[[Any], Any]) -> optax.GradientTransformation:
    return optax.stateless(lambda updates, params: function(updates))
