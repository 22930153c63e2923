"""Parameters as components: one tensor, or all that has one role, in one layer at a time."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxhpo.optimizers.masks import FUSED, FUSED_ROLES, is_stacked, named, renamed, role_of

Array = jax.Array

IN_BLOCK = re.compile(r"^(.*?)/(attention|mlp)")


class Piece(NamedTuple):
    """A tensor, or the part of a fused one that has the role `part`; f[...] or f[L, ...]."""

    name: str
    part: str
    values: Array

    @property
    def role(self) -> str:
        return self.part or role_of(self.name)

    @property
    def label(self) -> str:
        """Name of the tensor that the piece is, or would be if it were stored alone."""
        return f"{self.name}/{self.part}" if self.part else self.name

    @property
    def place(self) -> str:
        """The block that the piece is in, empty outside: each has components of its own."""
        found = IN_BLOCK.search(self.name)
        return found[1] if found else ""

    def squares(self) -> Array:
        """Sum of squares f32[], or one for each layer f32[L]."""
        values = self.values
        if values.dtype == jnp.bfloat16:
            values = values.astype(jnp.float32)
        return jnp.sum(values * values, axis=tuple(range(int(is_stacked(self.name)), values.ndim)))


def pieces(tree: Any) -> list[Piece]:
    """The tensors of a tree, fused projections split. Raises ValueError for one not in thirds."""
    found = []
    for name, leaf in named(tree).items():
        if FUSED.search(name):
            if leaf.shape[-1] % len(FUSED_ROLES):
                raise ValueError(f"{name} {leaf.shape} is not query, key and value of equal width")
            parts = jnp.split(leaf, len(FUSED_ROLES), -1)
            found += [Piece(name, *pair) for pair in zip(FUSED_ROLES, parts, strict=True)]
        else:
            found.append(Piece(name, "", leaf))
    return found


def joined(parts: Sequence[Piece], like: Any) -> Any:
    """Pieces as the tree that they were split from."""
    leaves: dict[str, list[Array]] = {}
    for piece in parts:
        leaves.setdefault(piece.name, []).append(piece.values)
    whole = {n: v[0] if len(v) == 1 else jnp.concatenate(v, -1) for n, v in leaves.items()}
    return renamed(whole, like)


def role_norms(tree: Any) -> dict[str, Array]:
    """Norm f32[] of all that has a role, over all layers, by role."""
    squares: dict[str, Array] = {}
    for piece in pieces(tree):
        # a product with itself is several times faster on a CPU than a sum of squares
        square = total(piece.values, piece.values)
        squares[piece.role] = squares.get(piece.role, jnp.float32(0)) + square
    return {role: jnp.sqrt(square) for role, square in squares.items()}


def total(a: Array, b: Array) -> Array:
    """Sum f32[] of the products of two arrays' entries, in float32 on every device."""
    highest = jax.lax.Precision.HIGHEST
    return jnp.vdot(a, b, precision=highest, preferred_element_type=jnp.float32)
