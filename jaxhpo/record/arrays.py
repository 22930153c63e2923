"""States as named host arrays, written and read with Orbax, which only this module knows."""

import concurrent.futures
import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxhpo.errors import UsageError

Tree = dict[str, tuple[str, tuple[int, ...]]]
_ITEM = "state"


def bytes_of(state: Any) -> int:
    """Size of a state in memory, replicas counted once."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in _named(state).values())


def host_copy(state: Any) -> dict[str, np.ndarray]:
    """The leaves by name as host arrays that share no memory with the state.

    The caller may donate the state as soon as this returns. Raises `TypeError` for a leaf that is
    not an array of numbers, `ValueError` for an array that other processes hold parts of.
    """
    leaves = _named(state)
    for leaf in leaves.values():
        if isinstance(leaf, jax.Array) and leaf.is_fully_addressable:
            leaf.copy_to_host_async()
    return {name: _copy(name, leaf) for name, leaf in leaves.items()}


def describe(state: Any) -> Tree:
    """Name -> (dtype, shape) of every leaf of a state, an abstract state or named arrays."""
    return {
        name: (np.dtype(leaf.dtype).name, tuple(leaf.shape)) for name, leaf in _named(state).items()
    }


def check_same(path: Path, saved: Tree, wanted: Tree) -> None:
    """Raises `UsageError` naming the leaves that differ: Orbax would cast their dtype silently."""
    differing = [
        f"{name} is {_shown(saved.get(name))} in the checkpoint and {_shown(wanted.get(name))} here"
        for name in sorted({*saved, *wanted})
        if saved.get(name) != wanted.get(name)
    ]
    if differing:
        more = f" (and {len(differing) - 2} more)" if len(differing) > 2 else ""
        raise UsageError(
            f"the checkpoint {path} does not fit this config: {'; '.join(differing[:2])}{more}"
        )


def write(directory: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays with Orbax into a new item of `directory`."""
    import orbax.checkpoint as ocp

    whole = {
        name: array for name, array in arrays.items() if array.size
    }  # Orbax refuses empty ones
    # a chunk for each member, so that one can be read without the others
    options = {name: ocp.SaveArgs(shard_axes=(0,) if a.ndim else ()) for name, a in whole.items()}
    checkpointer = ocp.Checkpointer(ocp.StandardCheckpointHandler())
    try:
        path = (directory / _ITEM).absolute()
        checkpointer.save(path, args=ocp.args.StandardSave(whole, save_args=options))
    finally:
        checkpointer.close()


def write_together(directory: Path, state: Any, seconds: int) -> Callable[[], None]:
    """Starts a save that all processes of a run make of their own parts of a state's arrays.

    The caller may donate the state as soon as this returns. What is returned waits until all parts
    are on the disk, for at most `seconds`; it may be called from another thread. Every process must
    call both, this from its main thread.
    """
    import orbax.checkpoint as ocp

    whole = {name: leaf for name, leaf in _named(state).items() if leaf.size}
    options = {n: ocp.SaveArgs(shard_axes=(0,) if leaf.ndim else ()) for n, leaf in whole.items()}
    saver = ocp.AsyncCheckpointer(ocp.StandardCheckpointHandler(), timeout_secs=seconds)
    path = (directory / _ITEM).absolute()
    saver.save(path, args=ocp.args.StandardSave(whole, save_args=options))
    return saver.close  # waits, and raises what went wrong


def read(directory: Path, abstract_state: Any) -> Any:
    """The state that `write` wrote, on the devices that `abstract_state` says."""
    wanted = {name: _with_sharding(leaf) for name, leaf in _named(abstract_state).items()}
    whole = {name: leaf for name, leaf in wanted.items() if leaf.size}
    # in its own thread: a notebook's main thread already runs an event loop
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        found = pool.submit(_restore, directory, whole).result()
    for name, leaf in wanted.items():
        if not leaf.size:
            empty = np.zeros(leaf.shape, leaf.dtype)
            found[name] = jax.make_array_from_callback(
                leaf.shape, leaf.sharding, lambda index, empty=empty: empty[index]
            )
    structure = jax.tree.structure(abstract_state)
    return jax.tree.unflatten(structure, [found[name] for name in wanted])


def read_rows(directory: Path, abstract_state: Any, rows: Mapping[str, Sequence[int]]) -> Any:
    """The state that `write` wrote with its rows in another order or number, leaf by leaf.

    Every device reads its own part alone; nothing is exchanged between processes.
    """
    named = _named(abstract_state)
    opened = _open(directory, [name for name, leaf in named.items() if leaf.size])

    def one(name: str, leaf: Any) -> jax.Array:
        taken = np.asarray(rows[name])

        def part(index: tuple[slice, ...]) -> np.ndarray:
            if name not in opened:
                return np.zeros(leaf.shape, leaf.dtype)[index]
            return np.asarray(opened[name][(taken[index[0]], *index[1:])].read().result())

        return jax.make_array_from_callback(leaf.shape, _with_sharding(leaf).sharding, part)

    return as_tree(abstract_state, {name: one(name, leaf) for name, leaf in named.items()})


def read_member(directory: Path, saved: Tree, member: int) -> dict[str, np.ndarray]:
    """Row `member` of arrays that `write` wrote; no other row's bytes are read."""
    opened = _open(directory, [name for name, (_, shape) in saved.items() if math.prod(shape)])
    return _row(opened, saved, member)


def stored_populations(directory: Path, saved: Tree, names: Iterable[str]) -> dict[str, list[str]]:
    """What `populations` gives, of arrays that lie in `directory`: a row at a time is read."""
    opened = _open(directory, [name for name, (_, shape) in saved.items() if math.prod(shape)])
    found = {}
    for name in names:
        own = {leaf: spec for leaf, spec in saved.items() if belongs(leaf, name)}
        rows = range(_rows(shape for _, shape in own.values()))
        found[name] = [member_digest(_row(opened, own, row)) for row in rows]
    return found


def _open(directory: Path, names: Sequence[str]) -> dict[str, Any]:
    import tensorstore

    base = f"file://{(directory / _ITEM).absolute()}/"
    opened = {
        name: tensorstore.open(
            {
                "driver": "zarr",
                "kvstore": {"driver": "ocdbt", "base": base, "path": f"{name}/"},
            },
            open=True,
            read=True,
        )
        for name in names
    }
    return {name: found.result() for name, found in opened.items()}


def _row(opened: Mapping[str, Any], saved: Tree, member: int) -> dict[str, np.ndarray]:
    reading = {name: opened[name][member].read() for name in saved if name in opened}
    # a chunk that is missing reads as zeros, which its digest does not match
    found = {name: np.asarray(row.result()) for name, row in reading.items()}
    empty = lambda dtype, shape: np.zeros(shape[1:], jax.numpy.dtype(dtype))
    return {name: found[name] if name in found else empty(*saved[name]) for name in saved}


def populations(arrays: Mapping[str, np.ndarray], names: Iterable[str]) -> dict[str, list[str]]:
    """By population, sha256 of each member; a population is what is named `name.`, "" is all.

    Empty where the arrays of a population have no common first dimension.
    """
    found = {}
    for name in names:
        own = {leaf: array for leaf, array in arrays.items() if belongs(leaf, name)}
        count = _rows(array.shape for array in own.values())
        rows = ({leaf: array[row] for leaf, array in own.items()} for row in range(count))
        found[name] = [member_digest(row) for row in rows]
    return found


def _rows(shapes: Iterable[tuple[int, ...]]) -> int:
    counts = {shape[:1] for shape in shapes}
    return counts.pop()[0] if len(counts) == 1 and () not in counts else 0


def belongs(leaf: str, population: str) -> bool:
    """Is this leaf of that population of a state?"""
    return not population or leaf.startswith(f"{population}.")


def member_digest(row: Mapping[str, np.ndarray]) -> str:
    """sha256 of one member's arrays with their names."""
    digest = hashlib.sha256()
    for name in sorted(row):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(row[name]).tobytes())
    return digest.hexdigest()


def as_tree(abstract: Any, named: Mapping[str, np.ndarray]) -> Any:
    """Named arrays in the structure of `abstract`."""
    return jax.tree.unflatten(
        jax.tree.structure(abstract), [named[name] for name in _named(abstract)]
    )


def _restore(directory: Path, wanted: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
    import orbax.checkpoint as ocp

    checkpointer = ocp.Checkpointer(ocp.StandardCheckpointHandler())
    try:
        path = (directory / _ITEM).absolute()
        return checkpointer.restore(path, args=ocp.args.StandardRestore(dict(wanted), strict=True))
    finally:
        checkpointer.close()


def _named(state: Any) -> dict[str, Any]:
    pairs, _ = jax.tree_util.tree_flatten_with_path(state)
    named = {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in pairs}
    if len(named) != len(pairs):
        raise ValueError("two leaves of the state have the same name")
    for name, leaf in named.items():
        if not hasattr(leaf, "dtype") or not isinstance(leaf.dtype, np.dtype):
            raise TypeError(f"{name} is {type(leaf).__name__}, not an array of numbers")
    return named


def _copy(name: str, leaf: Any) -> np.ndarray:
    if not isinstance(leaf, jax.Array):
        return np.array(leaf, copy=True)
    if not leaf.is_fully_addressable:
        raise ValueError(f"{name} is spread over several processes; only one process can save")
    copy = np.empty(leaf.shape, leaf.dtype)
    for shard in leaf.addressable_shards:
        if shard.replica_id == 0:
            copy[shard.index] = np.asarray(shard.data)
    return copy


def _with_sharding(leaf: Any) -> jax.ShapeDtypeStruct:
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _shown(spec: tuple[str, tuple[int, ...]] | None) -> str:
    return "absent" if spec is None else f"{spec[0]}{list(spec[1])}"
