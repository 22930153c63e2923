"""What a compiled program sends between devices: read from the compiler's own text.

A step of training is the body of a loop whose number of rounds is traced, so bytes are counted
within one round of it: every collective counts as often as the loops around it turn, where the
compiler knows how often (rows of a shard, layers, micro-batches), and once in a loop where it does
not (the steps). What lies in no such loop happens once a segment, and is kept apart. Of a choice
between branches each counts.

Bytes are those that one device sends when the operation is done on a ring, the least that any
algorithm needs for all but all-to-all: of N bytes over G devices an all-gather (N gathered), a
reduce-scatter and an all-to-all (N put in) send N (G-1)/G, an all-reduce twice that, a permutation
N. Source: Thakur et al. 2005, and NCCL's own bus bandwidth (nccl-tests, PERFORMANCE.md).

The text is that of the backend which compiled it: a CPU's compiler makes no asynchronous pairs, and
an all-reduce with a slice of its result where a TPU's makes a reduce-scatter.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxhpo.population.chips import Chip
from jaxhpo.population.hlo import Instruction, Module, parse

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)
"""Operations that move bytes between devices; each also in an asynchronous form, `-start`."""


@dataclass(frozen=True)
class Collective:
    """One operation of a program: what one device puts in, and how often it happens."""

    kind: str
    name: str
    axes: tuple[str, ...]
    """of the mesh that it crosses; none where every group is a single device"""
    group: int
    """devices that take part together"""
    operand: float
    """bytes that one device puts in, each time"""
    count: int
    """times in a step, or in a segment where it is outside of the steps"""
    per_step: bool

    @property
    def sent(self) -> float:
        """Bytes that one device sends on a ring, over all `count` times."""
        return self.count * self.operand * _ring(self.kind, self.group)


@dataclass(frozen=True)
class Traffic:
    """The collectives of one program on one mesh."""

    collectives: tuple[Collective, ...]

    def sent(self, per_step: bool = True) -> dict[tuple[str, ...], float]:
        """Bytes that one device sends in a step (else: once a segment), by the axes crossed."""
        found: dict[tuple[str, ...], float] = {}
        for each in self.collectives:
            if each.per_step == per_step and each.axes:
                found[each.axes] = found.get(each.axes, 0.0) + each.sent
        return found

    def crossing(self, axis: str) -> tuple[Collective, ...]:
        """Those that cross an axis of the mesh, wherever they are."""
        return tuple(each for each in self.collectives if axis in each.axes)

    def seconds(self, chip: Chip) -> float:
        """Time that a step's bytes take at a chip's stated bandwidth, nothing overlapped.

        Raises ValueError for a chip whose bandwidth is not known.
        """
        if chip.link is None:
            raise ValueError("the bandwidth between chips of this kind is not known")
        return sum(self.sent().values()) / chip.link


def traffic(program: Any, mesh: Any) -> Traffic:
    """The collectives of a compiled program (or its text) on the mesh it was compiled for.

    Raises ValueError for groups of devices in a form that is not known.
    """
    text = program if isinstance(program, str) else program.as_text()
    shape = dict(zip(mesh.axis_names, mesh.devices.shape, strict=True))
    return read(text, shape)


def read(text: str, shape: Mapping[str, int]) -> Traffic:
    """The collectives in a program's text; `shape` is the mesh, axis -> size, in order.

    Partition i is the mesh's i-th device in row-major order, which is how JAX hands them over.
    """
    module = parse(text)
    found = []
    for instruction, count, per_step in _visits(module):
        kind = instruction.opcode.removesuffix("-start")
        if kind not in KINDS:
            continue
        groups = groups_of(instruction, int(np.prod(list(shape.values()))))
        found.append(
            Collective(
                kind=kind,
                name=instruction.name,
                axes=axes_of(groups, shape),
                group=max(map(len, groups)),
                operand=module.operand_bytes(instruction),
                count=count,
                per_step=per_step,
            )
        )
    return Traffic(tuple(found))


def groups_of(instruction: Instruction, devices: int) -> tuple[tuple[int, ...], ...]:
    """The groups of devices of a collective, as numbers of partitions.

    Lists `{{0,1},{2,3}}`, the compiler's short form `[2,2]<=[2,2]T(1,0)`, axes of a mesh of its
    own, `mesh['a'=2,'b'=4] {'b'}`, and the pairs of a permutation; an empty list is all devices.
    """
    if (pairs := instruction.attribute("source_target_pairs")) is not None:
        return _lists(pairs)
    text = instruction.attribute("replica_groups")
    if text is None or text == "{}":
        return (tuple(range(devices)),)
    if text.startswith("{"):
        return _lists(text)
    if text.startswith("[") and "<=" in text:
        return _iota(text)
    if (found := _MESH.search(instruction.attributes)) is not None:
        return _along_axes(found["axes"], found["order"], found["crossed"])
    raise ValueError(f"{instruction.name}: replica_groups={text} is in no form that is known")


def axes_of(groups: Iterable[Sequence[int]], shape: Mapping[str, int]) -> tuple[str, ...]:
    """The axes along which the devices of a group differ, in the mesh's order."""
    crossed: set[str] = set()
    for group in groups:
        places = np.array(np.unravel_index(np.asarray(group), tuple(shape.values())))
        crossed |= {axis for axis, row in zip(shape, places, strict=True) if len(set(row)) > 1}
    return tuple(axis for axis in shape if axis in crossed)


def _visits(module: Module) -> Iterator[tuple[Instruction, int, bool]]:
    """Every instruction with how often it is done, and whether a loop of unknown length has it."""

    def walk(name: str, count: int, stepped: bool) -> Iterator[tuple[Instruction, int, bool]]:
        for instruction in module.computations[name]:
            yield instruction, count, stepped
            if instruction.opcode in ("async-done", "async-update"):
                continue  # of the same computation as its async-start
            rounds = instruction.trip_count if instruction.opcode == "while" else 1
            inside = stepped or rounds is None
            for called in instruction.called:
                if called in module.computations:
                    yield from walk(called, count * (rounds or 1), inside)

    yield from walk(module.entry, 1, False)


def _ring(kind: str, group: int) -> float:
    """Bytes sent for each byte that is put in."""
    if group < 2:
        return 0.0
    if kind == "all-reduce":
        return 2 * (group - 1) / group
    if kind == "all-gather":
        return group - 1  # what is put in is one share of what is gathered
    return 1.0 if kind in ("collective-permute", "collective-broadcast") else (group - 1) / group


def _lists(text: str) -> tuple[tuple[int, ...], ...]:
    """`{{0,1},{2,3}}` as tuples."""
    parts = text.strip("{}").split("},{")
    return tuple(tuple(int(number) for number in part.split(",")) for part in parts)


_MESH = re.compile(
    r"replica_groups=mesh\[(?P<axes>[^]]*)\]"
    r"(?:, device_ids=\((?P<order>\[[\d,]+\](?:T\([\d,]+\))?)\))? \{(?P<crossed>[^}]*)\}"
)
_AXIS = re.compile(r"'(?P<name>[^']+)'(?:=(?P<size>\d+)|:\((?P<before>\d+)\)(?P<part>\d+))?")


def _along_axes(axes: str, order: str | None, crossed: str) -> tuple[tuple[int, ...], ...]:
    """`'a'=2,'b'=4` and `'b'`: groups of those that differ in b alone; `'b':(2)2` is a part of an
    axis, of size 2, with 2 before it. `order` is that of the devices in the mesh."""
    wanted = {part["name"]: part for part in _AXIS.finditer(crossed)}
    sides: list[int] = []
    across: list[int] = []
    for axis in _AXIS.finditer(axes):
        size, part = int(axis["size"]), wanted.get(axis["name"])
        before, own = (1, size) if part is None or not part["part"] else (
            int(part["before"]), int(part["part"]),
        )  # fmt: skip
        if part is not None:
            across.append(len(sides) + 1)
        sides += [before, own, size // (before * own)]
    count = math.prod(sides)
    devices = np.arange(count) if order is None else np.array(_iota(f"[1,{count}]<={order}")[0])
    array = np.moveaxis(devices.reshape(sides), across, range(-len(across), 0))
    return tuple(map(tuple, array.reshape(-1, math.prod(sides[at] for at in across)).tolist()))


def _iota(text: str) -> tuple[tuple[int, ...], ...]:
    """`[G,N]<=[a,b]T(1,0)`: 0 to a*b-1 as an array [a, b], transposed, read as G groups of N."""
    groups, _, source = text.partition("<=")
    numbers = lambda part: [int(number) for number in part.strip("[]()").split(",")]
    dims, transposed, order = source.partition("T")
    array = np.arange(np.prod(numbers(dims))).reshape(numbers(dims))
    if transposed:
        array = array.transpose(numbers(order))
    return tuple(map(tuple, array.reshape(numbers(groups)).tolist()))
