"""The state that a fork starts from: linked into its own directory, then put on the device."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxhpo.errors import UsageError
from jaxhpo.population.member import Member
from jaxhpo.population.transfer import put
from jaxhpo.record.checkpoints import Store
from jaxhpo.record.directory import RunDirectory
from jaxhpo.record.manifest import read
from jaxhpo.record.sharing import Shared, share
from jaxhpo.record.shelf import Shelf
from jaxhpo.study.clock import Clock
from jaxhpo.study.groups import Groups
from jaxhpo.study.origin import Origin, Source, Taken
from jaxhpo.study.places import Places


def adopt(origin: Origin, run: RunDirectory) -> Shared:
    """Links the checkpoints that a fork starts from into its directory; from here on it needs the
    parent no more. Raises UsageError where one is gone, damaged or another than before."""
    parent = Shelf(RunDirectory.open(origin.run).checkpoints)
    mine = Shelf(run.parents)
    total = Shared(0, 0, 0)
    for taken in {
        taken.index: taken for source in origin.sources for taken in source.taken
    }.values():
        shared = share(parent.place(taken.index), mine.place(taken.index))
        if taken.digest and read(mine.place(taken.index))["digest"] != taken.digest:
            raise UsageError(f"{parent.place(taken.index)} was written anew meanwhile; fork again")
        total = total + shared
    return total


def take_places(groups: Groups, origin: Origin) -> None:
    """Seats the sources as trials 0 to m - 1 in front of the population, on the fork's clock."""
    group = groups.opened[()]
    group.lower = Clock(origin.schedule_shift)(group.lower)
    free = group.shape(len(origin.children)).size - len(origin.sources)
    steps = [source.step for source in origin.sources]
    group.places = Places((*range(len(steps)), *[None] * free), (*steps, *[0] * free))


def implant(groups: Groups, origin: Origin, run: RunDirectory) -> None:
    """Puts the sources on the device, each read alone from its checkpoint."""
    group = groups.opened[()]
    abstract = group.abstract(len(origin.children))
    store = Store(run, root=run.parents)
    members = [member_of(source, reader(store, abstract)) for source in origin.sources]
    group.population = jax.tree.map(_stacked, abstract, *members)


def member_of(source: Source, read_member: Callable[[Taken], Member]) -> Member:
    """A source as host arrays: the newest member; the parameters of several are averaged."""
    *earlier, newest = source.taken
    member = read_member(newest)
    if not earlier:
        return member
    params = [read_member(taken).params for taken in earlier] + [member.params]
    return Member(average(params, source.weights), member.moments, member.step)


def average(params: list[Any], weights: tuple[float, ...]) -> Any:
    """The weighted mean of parameters, summed in float64."""

    def mean(*leaves: np.ndarray) -> np.ndarray:
        total = sum(w * leaf.astype(np.float64) for w, leaf in zip(weights, leaves, strict=True))
        return np.asarray(total).astype(leaves[0].dtype)

    return jax.tree.map(mean, *params)


def reader(store: Store, population: Member) -> Callable[[Taken], Member]:
    """Reads one member of a checkpoint alone; `population` is one of its kind."""
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), population)
    return lambda taken: store.restore_member(taken.index, taken.place, one, taken.population)


def _stacked(whole: jax.ShapeDtypeStruct, *members: np.ndarray) -> jax.Array:
    rows = np.zeros(whole.shape, whole.dtype)
    for place, member in enumerate(members):
        rows[place] = member
    return put(rows, whole.sharding)
