"""Which parameters a rule applies to, by path and never by number of dimensions."""

import re
from typing import Any

import jax

UNDECAYED = re.compile(r"norm|bias")
"""Parameters that weight decay leaves alone: gains and biases."""


def path_name(path: tuple[Any, ...]) -> str:
    """`('blocks', 'up', 'kernel')` keys of a pytree path as `blocks/up/kernel`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def decayed(params: Any) -> Any:
    """True where weight decay applies, as a tree of the same structure."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: UNDECAYED.search(path_name(path)) is None, params
    )
