"""Every mesh that some devices allow: bytes on each, and the time that a step would take."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from jaxhpo import nn
from jaxhpo.errors import UsageError
from jaxhpo.population import memory
from jaxhpo.population.chips import CHIPS, Chip
from jaxhpo.population.config import AXES, Axes
from jaxhpo.population.sharding import FSDP, Spec, check_mesh, parts, spec_of
from jaxhpo.population.work import flops_per_step

UTILISATION = 0.5
"""Share of a chip's peak that a step's operations are taken to reach."""

REMAT = 4 / 3
"""A step's operations where the forward pass is made twice, as a multiple of those counted."""

ALL_REDUCES_A_LAYER = 4
"""Of activations over `tensor`: behind attention and the MLP, forward and backward. Source: Shoeybi
et al. 2019 (arXiv 1909.08053), figure 4."""


@dataclass(frozen=True)
class MeshChoice:
    """One mesh. Seconds are of one step of every member; nothing is taken to overlap."""

    mesh: str
    rows: int
    """members on a device, one after another or in chunks"""
    memory: memory.MemoryPlan
    compute_seconds: float
    collective_seconds: float

    @property
    def seconds(self) -> float:
        return self.compute_seconds + self.collective_seconds


@dataclass(frozen=True)
class MeshChoices:
    """Meshes of so many chips, the fastest of those that fit first."""

    chip: str
    devices: int
    choices: tuple[MeshChoice, ...]

    def __str__(self) -> str:
        chip = CHIPS[self.chip]
        head = ("mesh", "memory a device", "step", "compute", "collectives", "")
        body = [
            (
                each.mesh,
                f"{each.memory.total / 2**20:,.1f} MiB",
                *(
                    f"{1e3 * seconds:,.4g} ms"
                    for seconds in (each.seconds, each.compute_seconds, each.collective_seconds)
                ),
                "" if each.memory.fits else "does not fit",
            )
            for each in self.choices
        ]
        widths = [max(len(row[i]) for row in (head, *body)) for i in range(len(head))]
        lines = [
            "  ".join(
                cell.ljust(width) if i in (0, len(head) - 1) else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in (head, *body)
        ]
        said = (
            f"meshes of {self.devices} {self.chip} chips, predicted: {UTILISATION:.0%} of "
            f"{chip.flops / 1e12:,.1f} TFLOP/s (bfloat16), {(chip.link or 0) / 1e9:,.0f} GB/s each"
        )
        return "\n".join([said, *lines])


def mesh_choices(
    config: Any, members: int, chip: str, devices: int, segment: int, probe: int, streams: int = 1
) -> MeshChoices:
    """All meshes of `devices` chips that members, heads and batch allow.

    Lengths are steps, as in `memory_plan`. Raises UsageError for a chip whose bandwidth is not
    known.
    """
    kind = CHIPS.get(chip)
    if kind is None or kind.link is None:
        known = ", ".join(name for name, each in CHIPS.items() if each.link is not None)
        raise UsageError(f"chip={chip}; allowed: {known}")
    found = [
        _choice(config, members, kind, axes, segment, probe, streams)
        for axes in factorisations(devices)
        if axes.member <= members and _is_allowed(config, axes)
    ]
    found.sort(key=lambda each: (not each.memory.fits, each.seconds, each.memory.total))
    return MeshChoices(chip, devices, tuple(found))


def factorisations(devices: int) -> Iterator[Axes]:
    """All axes whose product is a number of devices.

    >>> len(list(factorisations(8)))
    20
    """
    divisors = [n for n in range(1, devices + 1) if devices % n == 0]
    for three in itertools.product(divisors, repeat=len(AXES) - 1):
        rest, left = divmod(devices, math.prod(three))
        if not left:
            yield Axes(rest, *three)


def _is_allowed(config: Any, axes: Axes) -> bool:
    try:
        check_mesh(config.model, config.data.batch_size, config.execution.accumulate, axes)
    except UsageError:
        return False
    return True


def _choice(
    config: Any, members: int, chip: Chip, axes: Axes, segment: int, probe: int, streams: int
) -> MeshChoice:
    rows = -(-members // axes.member)
    held = max(rows, memory.ROWS_A_SHARD)
    limit = config.execution.memory_gib
    plan = memory.memory_plan(
        config,
        held,
        config.execution.chunk or 1,
        segment,
        probe,
        streams,
        axes,
        limit=int(chip.memory if limit is None else limit * 2**30),
    )
    model = config.model
    operations = flops_per_step(config) * (REMAT if model.remat else 1)
    peak = chip.peak(model.compute_dtype)
    return MeshChoice(
        mesh=str(axes),
        rows=rows,
        memory=plan,
        compute_seconds=rows * operations / axes.inner / (UTILISATION * peak),
        collective_seconds=rows * sum(sent_bytes(config, axes).values()) / (chip.link or math.inf),
    )


def sent_bytes(config: Any, axes: Axes) -> dict[str, float]:
    """Bytes that one device sends in one step of one member, by axis, on rings.

    Weights are gathered over fsdp twice and their gradients scattered once; gradients are summed
    over data; activations are summed over tensor. Source of the volumes: Thakur et al. 2005.
    """
    trained = memory.trained_tensors(config)
    frozen = nn.tensors(config.model) if memory.adapter_of(config) is not None else {}
    found = {"data": 0.0, "fsdp": 0.0, "tensor": 0.0}
    ring = lambda devices: (devices - 1) / devices
    for name, shape in (*trained.items(), *frozen.items()):
        spec = spec_of(name, shape, axes)
        size = 4 * math.prod(shape) / _tensor_parts(spec, axes)
        is_split = any(FSDP in (e if isinstance(e, tuple) else (e,)) for e in spec)
        if is_split:
            found["fsdp"] += 2 * ring(axes.fsdp) * size
        if name not in trained:
            continue
        if is_split:
            found["fsdp"] += ring(axes.fsdp) * size
            found["data"] += 2 * ring(axes.data) * size / axes.fsdp
        else:
            axis = "data" if axes.data > 1 else "fsdp"
            found[axis] += 2 * ring(axes.batch) * size
    model = config.model
    width = 2 if model.compute_dtype == "bfloat16" else 4
    stream = width * config.tokens_per_step / axes.batch * model.d_model
    sums = model.num_layers * (ALL_REDUCES_A_LAYER + 2 * model.remat) + 2
    found["tensor"] = sums * 2 * ring(axes.tensor) * stream
    return found


def _tensor_parts(spec: Spec, axes: Axes) -> int:
    return math.prod(parts(entry, Axes(tensor=axes.tensor)) for entry in spec)
