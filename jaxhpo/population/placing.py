"""The rules of sharding on a mesh: where a population lies, and what a model's values are told."""

from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from jaxhpo.population.mesh import BATCH, MEMBER, TENSOR, axes_of
from jaxhpo.population.sharding import Spec, fitting, spec_of, state_spec

ACTIVATIONS: dict[str, Spec] = {
    "table": (TENSOR, None),
    "readout": (None, TENSOR),
    "stream": (BATCH, None, None),
    "heads": (BATCH, None, TENSOR, None),
    "hidden": (BATCH, None, TENSOR),
    "logits": (BATCH, None, TENSOR),
}
"""What the model names (`nn.constraints`) -> its split: tables are gathered over fsdp when they are
used, and everything that has a batch is split over it."""


class Placement:
    """Shardings of what one engine holds. `constrain` speaks inside its compiled programs."""

    def __init__(self, mesh: jax.sharding.Mesh) -> None:
        self.mesh, self.axes = mesh, axes_of(mesh)

    def population(self, abstract: Any) -> Any:
        """Shardings of a population, a `Member` of shapes [P, ...]."""
        one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), abstract)
        row = lambda spec: NamedSharding(self.mesh, PartitionSpec(MEMBER, *spec))
        return jax.tree.map(row, self.member(one))

    def shared(self, tree: Any) -> Any:
        """Shardings of what all members share: a frozen base, or parameters; each part once."""
        return jax.tree.map(lambda spec: NamedSharding(self.mesh, spec), self.parameters(tree))

    # splits of one member's arrays, as trees of PartitionSpec

    def parameters(self, tree: Any) -> Any:
        """The split of each array of a tree of parameters, or of a stored base."""
        return jax.tree_util.tree_map_with_path(
            lambda path, x: PartitionSpec(*self._spec(path, x)), tree
        )

    def member(self, one: Any) -> Any:
        """The split of each array of one `Member`: what the optimizer keeps follows parameters."""
        leaves = jax.tree_util.tree_leaves_with_path(one.params)
        known = {_name(path): (x.shape, self._spec(path, x)) for path, x in leaves}
        moments = jax.tree_util.tree_map_with_path(
            lambda path, x: PartitionSpec(*state_spec(_name(path), x.shape, known)), one.moments
        )
        return type(one)(self.parameters(one.params), moments, PartitionSpec())

    def _spec(self, path: tuple[Any, ...], x: Any) -> Spec:
        return spec_of(_name(path).removeprefix("params/"), x.shape, self.axes)

    # inside a program

    def constrain(self, name: str, value: Any) -> Any:
        """The value, split as the rules say: an activation, "micro" batches [A, B, ...],
        "gradients" or "params", or a whole "member"."""
        if self.axes.inner == 1:
            return value
        if name == "member":
            specs = self.member(value)
        elif name in ("gradients", "params"):
            specs = self.parameters(value)
        elif name == "micro":
            specs = jax.tree.map(lambda x: self._fitted(x, (None, BATCH)), value)
        else:
            specs = self._fitted(value, ACTIVATIONS[name])
        return jax.lax.with_sharding_constraint(value, specs)

    def _fitted(self, x: jax.Array, entries: Spec) -> PartitionSpec:
        entries = entries + (None,) * (x.ndim - len(entries))
        pairs = zip(x.shape, entries, strict=True)
        return PartitionSpec(*(fitting(side, entry, self.axes) for side, entry in pairs))


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
