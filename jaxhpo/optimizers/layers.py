"""One layer at a time: transformations that look at whole tensors, over stacked blocks."""

from typing import Any, NamedTuple

import jax
import optax

from jaxhpo.optimizers.masks import is_stacked, named, renamed


class LayeredState(NamedTuple):
    """State of what lies outside the blocks, and of the blocks with a leading [L]."""

    outside: Any
    blocks: Any


def by_layer(transform: optax.GradientTransformation) -> optax.GradientTransformation:
    """`transform` as if every layer's tensors were tensors of their own.

    Tensors outside the blocks are seen as they are. The transformation sees flat dicts, by path.
    """

    def init(params: optax.Params) -> LayeredState:
        outside, blocks = _apart(params)
        return LayeredState(
            transform.init(outside), jax.vmap(transform.init)(blocks) if blocks else ()
        )

    def update(updates: Any, state: LayeredState, params: Any = None) -> tuple[Any, LayeredState]:
        (outside, blocks), (free, stacked) = _apart(updates), _apart(params)
        outside, first = transform.update(outside, state.outside, free)
        second = state.blocks
        if blocks:
            blocks, second = jax.vmap(transform.update)(blocks, state.blocks, stacked)
        return renamed({**outside, **blocks}, updates), LayeredState(first, second)

    return optax.GradientTransformation(init, update)


def _apart(tree: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    leaves = named(tree)
    blocks = {name: leaf for name, leaf in leaves.items() if is_stacked(name)}
    return {name: leaf for name, leaf in leaves.items() if name not in blocks}, blocks
