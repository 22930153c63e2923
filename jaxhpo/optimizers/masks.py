"""Which parameters a rule applies to, by path and never by number of dimensions."""

import functools
import re
from collections.abc import Iterable, Mapping
from typing import Any

from jaxhpo.errors import UsageError
from jaxhpo.optimizers.config import ROLES, OptimizerConfig, parse_rule

UNDECAYED = re.compile(r"norm|bias")
"""Parameters that weight decay leaves alone: gains and biases."""

EMBEDDING = re.compile(r"(^|/)(embed|positions|token_types)(/|$)")

ROLE_PATTERNS = {
    "embedding": EMBEDDING,
    "readout": re.compile(r"(^|/)(readout(_dense|_bias)?|head)(/|$)"),
    "norm": re.compile(r"norm(/|$)"),
    "query": re.compile(r"(^|/)attention/query(/|$)"),
    "key": re.compile(r"(^|/)attention/key(/|$)"),
    "value": re.compile(r"(^|/)attention/value(/|$)"),
    "attention_out": re.compile(r"(^|/)attention/out(/|$)"),
    "mlp_in": re.compile(r"(^|/)mlp/(up|gate)(/|$)"),
    "mlp_out": re.compile(r"(^|/)mlp/down(/|$)"),
}
"""Role -> the paths that have it; every parameter has exactly one."""

FUSED = re.compile(r"(^|/)attention/qkv(/|$)")
"""Query, key and value in one tensor, side by side on the last axis, as GPT-2 stores them."""

FUSED_ROLES = ("query", "key", "value")

MATRIX_ROLES = frozenset(ROLES) - {"embedding", "readout", "norm"}


def path_name(path: tuple[Any, ...]) -> str:
    """`('blocks', 'up', 'kernel')` keys of a pytree path as `blocks/up/kernel`."""
    import jax  # late: rules about names alone load nothing heavy

    return jax.tree_util.keystr(path, simple=True, separator="/")


def named(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by path name, in its order."""
    import jax  # late: rules about names alone load nothing heavy

    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def renamed(leaves: Mapping[str, Any], like: Any) -> Any:
    """Leaves by path name as a tree with the structure of `like`."""
    import jax  # late: rules about names alone load nothing heavy

    return jax.tree_util.tree_map_with_path(lambda path, _: leaves[path_name(path)], like)


def is_stacked(name: str) -> bool:
    """Whether a parameter's leading axis is the layers': a rule for tensors must see one of them.

    >>> is_stacked("blocks/mlp/up/kernel"), is_stacked("embed/embedding")
    (True, False)
    """
    return name.startswith("blocks/")


@functools.lru_cache(maxsize=4096)
def role_of(name: str) -> str:
    """The role of a parameter. Raises UsageError where no rule or more than one matches its path.

    >>> role_of("blocks/attention/query_norm/scale"), role_of("blocks/mlp/gate/kernel")
    ('norm', 'mlp_in')
    """
    found = [role for role, pattern in ROLE_PATTERNS.items() if pattern.search(name)]
    if len(found) != 1:
        what = " and ".join(found) or "none"
        raise UsageError(f"parameter {name} has {what} of the roles {', '.join(ROLES)}; one is due")
    return found[0]


def is_matrix(name: str) -> bool:
    """Whether a parameter is a projection of a block, which Muon orthogonalises."""
    return name.endswith("kernel") and role_of(name) in MATRIX_ROLES


def decay_shares(config: OptimizerConfig, names: Iterable[str]) -> dict[str, float]:
    """Share of the weight decay that each parameter gets: 1 or 0, or what a rule of the user says.

    Raises UsageError for a rule that matches nothing and for two rules that match one parameter.
    """
    rules = {text: parse_rule(text) for text in config.decay_rules}
    used: set[str] = set()
    shares = {}
    for name in names:
        mine = [text for text, (pattern, _) in rules.items() if pattern.search(name)]
        if len(mine) > 1:
            raise UsageError(
                f"optimizer.decay_rules: {mine[0]!r} and {mine[1]!r} both match {name}; "
                "allowed: one rule for a tensor"
            )
        used |= set(mine)
        spared = UNDECAYED.search(name) or (
            not config.decay_embeddings and EMBEDDING.search(name) is not None
        )
        shares[name] = rules[mine[0]][1] if mine else 0.0 if spared else 1.0
    for text in rules:
        if text not in used:
            raise UsageError(
                f"optimizer.decay_rules: {text!r} matches no parameter; "
                f"there are {', '.join(list(shares)[:4])}, ..."
            )
    return shares
