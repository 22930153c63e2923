"""Which place each trial takes: shards carry equal work, whoever trains sits in front."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """A population's places: `shards` contiguous blocks of whole chunks."""

    size: int
    shards: int = 1
    chunk: int = 1

    @property
    def block(self) -> int:
        """Places on one shard."""
        return self.size // self.shards

    def shard_of(self, place: int) -> int:
        return place // self.block

    def lane_steps(self, work: Sequence[int]) -> int:
        """Steps that the lanes of all chunks make for rows of so much `work`, idle ones included.

        >>> Shape(4, chunk=2).lane_steps([5, 1, 0, 0])
        10
        """
        chunks = [work[at : at + self.chunk] for at in range(0, self.size, self.chunk)]
        return sum(self.chunk * max(chunk) for chunk in chunks)


def settle(
    before: Sequence[int | None], work: Mapping[int, int], shape: Shape
) -> tuple[int | None, ...]:
    """The trial in each place (None: free), given who sat where `before` and each trial's steps.

    Who can stay stays; newcomers take the free places in order; then trials move from the shard
    with the most work as long as that makes it less. With chunks of several rows, a shard whose
    idle rows would keep whole chunks busy is sorted, most work first. Raises ValueError if there
    are more trials than places.

    >>> settle((0, 1, 2, 3), {0: 0, 1: 9, 4: 9}, Shape(4, shards=2))
    (0, 1, 4, None)
    """
    if len(work) > shape.size:
        raise ValueError(f"{len(work)} trials do not fit {shape.size} places")
    places: list[int | None] = [
        trial if trial in work else None for trial in [*before, *[None] * shape.size][: shape.size]
    ]
    seated = set(places)
    free = (place for place, trial in enumerate(places) if trial is None)
    for trial in work:
        if trial not in seated:
            places[next(free)] = trial
    balance(places, work, shape)
    if shape.chunk > 1:
        sort_blocks(places, work, shape)
    return tuple(places)


def balance(places: list[int | None], work: Mapping[int, int], shape: Shape) -> None:
    """Swaps places until no swap with another shard lightens the one that has the most work."""
    load = [0] * shape.shards
    for place, trial in enumerate(places):
        load[shape.shard_of(place)] += _of(work, trial)
    while (swap := _best_swap(places, work, shape, load)) is not None:
        a, b = swap
        moved = _of(work, places[a]) - _of(work, places[b])
        places[a], places[b] = places[b], places[a]
        load[shape.shard_of(a)] -= moved
        load[shape.shard_of(b)] += moved


def _best_swap(
    places: Sequence[int | None], work: Mapping[int, int], shape: Shape, load: Sequence[int]
) -> tuple[int, int] | None:
    """The places whose swap leaves the two shards' larger load least; None if none helps."""
    heavy = max(range(shape.shards), key=lambda shard: load[shard])
    best, least = None, load[heavy]
    for shard in range(shape.shards):
        if load[shard] >= load[heavy]:
            continue
        for a in _one_of_each(_block(heavy, shape), places, work, last=True):
            for b in _one_of_each(_block(shard, shape), places, work, last=False):
                moved = _of(work, places[a]) - _of(work, places[b])
                after = max(load[heavy] - moved, load[shard] + moved)
                if moved > 0 and after < least:
                    best, least = (a, b), after
    return best


def _one_of_each(
    block: Iterable[int], places: Sequence[int | None], work: Mapping[int, int], last: bool
) -> list[int]:
    """One place for each amount of work in a block, a free one before a paused trial's."""
    found: dict[tuple[int, bool], int] = {}
    for place in block:
        key = (_of(work, places[place]), places[place] is not None)
        if last or key not in found:
            found[key] = place
    return [found[key] for key in sorted(found)]


def sort_blocks(places: list[int | None], work: Mapping[int, int], shape: Shape) -> None:
    """Sorts the rows of each shard whose chunks would otherwise make more steps."""
    one = Shape(shape.block, 1, shape.chunk)
    for shard in range(shape.shards):
        block = _block(shard, shape)
        now = [places[place] for place in block]
        wanted = sorted(now, key=lambda trial: (-_of(work, trial), trial is None))
        cost = lambda row: one.lane_steps([_of(work, trial) for trial in row])
        if cost(wanted) < cost(now):
            places[block.start : block.stop] = wanted


def _block(shard: int, shape: Shape) -> range:
    return range(shard * shape.block, (shard + 1) * shape.block)


def _of(work: Mapping[int, int], trial: int | None) -> int:
    return 0 if trial is None else work[trial]
