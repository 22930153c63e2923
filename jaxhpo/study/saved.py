"""Members and parameters outside the population: in checkpoints, and as safetensors files."""

import hashlib
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxhpo.errors import UsageError
from jaxhpo.population.member import Member
from jaxhpo.record.checkpoints import Store
from jaxhpo.study.groups import Groups
from jaxhpo.study.kept import populations


def member_at(store: Store, groups: Groups, trial: int, step: int) -> Member:
    """One member as a checkpoint of this run has it, as host arrays.

    Raises UsageError naming the steps that do exist.
    """
    there = set()
    for index in reversed(store.indices()):
        metadata = store.metadata(index)
        for name, trials, steps in populations(metadata):
            if trial not in trials:
                continue
            place = trials.index(trial)
            there.add(steps[place])
            if steps[place] == step:
                home = groups.home(name, metadata)
                whole = home.abstract(home.engines[-1].size)
                one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), whole)
                return store.restore_member(index, place, one, name)
    steps = ", ".join(map(str, sorted(there))) or "none"
    raise UsageError(
        f"no checkpoint in {store.root} has trial {trial} at step {step}; steps there are: {steps}"
    )


def as_safetensors(params: Any) -> bytes:
    """Parameters as a safetensors file; names are paths, such as `blocks.mlp.up.kernel`."""
    from safetensors.numpy import save

    return save({name: np.ascontiguousarray(leaf) for name, leaf in _named(params).items()})


def from_safetensors(path: Path, digest: str, like: Any) -> Any:
    """Parameters in the structure of `like`. Raises UsageError where the file has changed."""
    from safetensors.numpy import load

    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise UsageError(f"{path} is not what the run wrote; restore it, or run the search again")
    found = load(content)
    return jax.tree.unflatten(jax.tree.structure(like), [found[name] for name in _named(like)])


def _named(params: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}
