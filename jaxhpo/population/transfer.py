"""Host arrays onto the devices of a mesh and back, whether one process has all of them or not.

Of several processes each has the same host arrays and touches its own devices only; nothing is
compared on the way, unlike in `jax.device_put`.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxhpo.population.mesh import MEMBER


def put(tree: Any, sharding: Any) -> Any:
    """Arrays on their devices, or where they are; `sharding` is one for all or a tree of them."""
    if all(each.is_fully_addressable for each in jax.tree.leaves(sharding)):
        return jax.device_put(tree, sharding)
    if isinstance(sharding, jax.sharding.Sharding):
        return jax.tree.map(lambda leaf: _spread(leaf, sharding), tree)
    return jax.tree.map(_spread, tree, sharding)


def zeros(abstract: Any) -> Any:
    """Zeros in the shapes and shardings of an abstract tree; no process makes more than its own."""

    def make(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        shape = leaf.sharding.shard_shape(leaf.shape)
        return jax.make_array_from_callback(
            leaf.shape, leaf.sharding, lambda _: np.zeros(shape, leaf.dtype)
        )

    return jax.tree.map(make, abstract)


def fetch(tree: Any) -> Any:
    """Arrays of all devices as host arrays, in every process; of several, by one small program."""
    leaves = jax.tree.leaves(tree)
    spread = next((leaf for leaf in leaves if not _is_here(leaf)), None)
    if spread is None:
        return jax.device_get(tree)
    everywhere = _everywhere(spread.sharding.mesh)
    gathered = _gather(everywhere)(tree)
    return jax.tree.map(lambda leaf: np.asarray(leaf.addressable_data(0)), gathered)


def fetch_row(tree: Any, place: int) -> Any:
    """One row of arrays [P, ...] as host arrays, in every process.

    Of one process it comes from the shards that have it, and nothing is compiled. Of several, all
    must ask: the row is summed over the member axis, as bits, so that it stays what it is.
    """
    spread = next((leaf for leaf in jax.tree.leaves(tree) if not _is_here(leaf)), None)
    if spread is None:
        return jax.tree.map(lambda leaf: _own_row(leaf, place), tree)
    gathered = _row_program(spread.sharding.mesh)(tree, np.int32(place))
    return jax.tree.map(lambda leaf: np.asarray(leaf.addressable_data(0)), gathered)


def replace_row(leaf: jax.Array, place: int, new: np.ndarray) -> jax.Array:
    """An array [P, ...] with one row from the host; only the shards that have it are touched."""
    pieces = []
    for shard in leaf.addressable_shards:
        start, stop, _ = shard.index[0].indices(leaf.shape[0])
        piece = shard.data
        if start <= place < stop:
            whole = np.array(piece)
            whole[place - start] = new[shard.index[1:]]
            piece = jax.device_put(whole, shard.device)
        pieces.append(piece)
    return jax.make_array_from_single_device_arrays(leaf.shape, leaf.sharding, pieces)


def _is_here(leaf: Any) -> bool:
    return not isinstance(leaf, jax.Array) or leaf.is_fully_addressable


def _spread(leaf: Any, sharding: jax.sharding.Sharding) -> jax.Array:
    if isinstance(leaf, jax.Array) and leaf.sharding == sharding:
        return leaf
    host = np.asarray(leaf)
    host = host.astype(jax.dtypes.canonicalize_dtype(host.dtype), copy=False)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def _own_row(leaf: jax.Array, place: int) -> np.ndarray:
    row = np.empty(leaf.shape[1:], leaf.dtype)
    for shard in leaf.addressable_shards:
        start, stop, _ = shard.index[0].indices(leaf.shape[0])
        if start <= place < stop and shard.replica_id == 0:
            row[shard.index[1:]] = np.asarray(shard.data)[place - start]
    return row


def _everywhere(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


@functools.cache
def _gather(sharding: NamedSharding) -> Callable[[Any], Any]:
    return jax.jit(lambda tree: tree, out_shardings=sharding)


@functools.cache
def _row_program(mesh: Mesh) -> Callable[[Any, Any], Any]:
    """Picks a row on the shard that has it and hands it to all."""

    def pick(tree: Any, place: jax.Array) -> Any:
        def one(leaf: jax.Array) -> jax.Array:
            count = leaf.shape[0]
            here = place - jax.lax.axis_index(MEMBER) * count
            row = jax.lax.dynamic_index_in_dim(leaf, jnp.clip(here, 0, count - 1), keepdims=False)
            logical = leaf.dtype == bool
            unsigned = jnp.dtype(f"uint{8 * leaf.dtype.itemsize}")
            bits = row.astype("uint8") if logical else jax.lax.bitcast_convert_type(row, unsigned)
            mine = (here >= 0) & (here < count)
            bits = jax.lax.psum(jnp.where(mine, bits, jnp.zeros_like(bits)), MEMBER)
            return bits != 0 if logical else jax.lax.bitcast_convert_type(bits, leaf.dtype)

        return jax.tree.map(one, tree)

    mapped = jax.shard_map(
        pick,
        mesh=mesh,
        in_specs=(PartitionSpec(MEMBER), PartitionSpec()),
        out_specs=PartitionSpec(),
        axis_names={MEMBER},
        check_vma=False,
    )
    return jax.jit(mapped, out_shardings=_everywhere(mesh))
