"""How much memory a population takes on a device, by a closed formula: no compiler is asked."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from jaxhpo import adapters, nn, optimizers
from jaxhpo.adapters.config import AdapterConfig
from jaxhpo.errors import UsageError
from jaxhpo.nn.config import ModelConfig
from jaxhpo.optimizers.config import OptimizerConfig
from jaxhpo.population.config import Axes
from jaxhpo.population.sharding import held_shapes

USABLE = 0.92
"""Share of a device's memory that may be planned for; the rest is the runtime's."""

LAYERS_UNROLLED = 12
"""Depth up to which a CPU runs the layer loop laid out; more would take long to compile."""

METRICS = 48
"""Numbers that are recorded of a step, at most: three of any, clipping and norms by role."""

WORKING_COPIES = 3
"""Copies of one member's parameters that a step holds besides its state: gradient, update, sum."""


LAYERS_GATHERED = 2
"""Layers whose weights are whole at one time under fsdp: the one at work, and the next."""

FROZEN_SHARE = 0.8
"""What a backward pass keeps of its activations where the weights have no gradient: measured."""


ROWS_A_SHARD = 2
"""Rows that an engine has on a shard at least: a lone member is padded."""

ALONE = Axes()
"""A member to itself on each device."""


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes on one device, at the peak of training."""

    state: int
    """parameters and moments of all rows, updated in place"""
    working: int
    """one chunk's state in flight, gradients and activations"""
    data: int
    """staged batches of two segments, held-out batches and metrics"""
    limit: int | None
    """what the device has, if it tells"""
    shared: int = 0
    """what all members have in common: the frozen base, once"""

    @property
    def total(self) -> int:
        return self.shared + self.state + self.working + self.data

    @property
    def fits(self) -> bool:
        return self.limit is None or self.total <= USABLE * self.limit


def memory_plan(
    config: Any,
    rows: int,
    chunk: int,
    segment: int,
    probe: int,
    streams: int = 1,
    axes: Axes = ALONE,
    limit: int | None = None,
) -> MemoryPlan:
    """The plan for `rows` members on a device, `chunk` at once, in segments of `segment` steps.

    `config` has the sections of a run; lengths are steps; `axes` say how each member is shared.
    A single stream of batches is staged one segment ahead; of several, those in use. `limit` is
    what a device has (default: `device_limit`).
    """
    batch = config.data.batch_size // axes.batch
    micro = batch // config.execution.accumulate
    tokens = config.model.context + 1
    steps = 2 * segment + probe if streams == 1 else streams * (segment + probe)
    arrays = 1 if config.data.languages is None else 3  # masks and segments beside the tokens
    staged = 4 * arrays * batch * tokens * (steps + config.data.eval_batches)
    metrics = METRICS * 4 * rows * segment
    return MemoryPlan(
        state=rows * _stored(config, axes),
        working=chunk * working_bytes(config, micro, axes),
        data=staged + metrics,
        limit=device_limit(config) if limit is None else limit,
        shared=shared_bytes(config, axes),
    )


def member_bytes(
    model: ModelConfig,
    optimizer: OptimizerConfig,
    searched: Collection[str] = (),
    axes: Axes = ALONE,
) -> int:
    """Bytes of one member: parameters, what the optimizer keeps of them, and the step.

    `searched` are the optimizer's fields that a search changes: a momentum may exist only for it.
    """
    which = optimizers.present(optimizer, searched)
    shapes = nn.tensors(model)
    held = held_shapes(shapes, axes)
    kept = optimizers.state_bytes(optimizer, shapes, which, held)
    return nn.parameter_bytes(model, held) + kept + 4


def adapter_bytes(
    adapter: AdapterConfig,
    model: ModelConfig,
    optimizer: OptimizerConfig,
    searched: Collection[str] = (),
    axes: Axes = ALONE,
) -> int:
    """Bytes of one member that trains an adapter: its arrays, what the optimizer and AdaLoRA's
    allocation keep of them, and the step."""
    shapes = adapters.tensors(adapter, model)
    held = held_shapes(shapes, axes)
    which = optimizers.present(optimizer, searched)
    kept = optimizers.state_bytes(optimizer, shapes, which, held)
    total = 4 * _count(held) + kept + 4
    if adapter.kind == "adalora":  # two averages of every entry, and a mask
        masks = sum(math.prod(x) for name, x in shapes.items() if name.endswith("lora_e"))
        total += 2 * 4 * _count(held) + masks
    return total


def shared_bytes(config: Any, axes: Axes = ALONE) -> int:
    """Bytes of what all members share: the base that adapters are trained on, as it is stored, or
    the weights that all of them start from."""
    if not getattr(config, "adapter", None):
        return 0
    adapter, held = adapter_of(config), held_shapes(nn.tensors(config.model), axes)
    if adapter is not None:
        return adapters.stored_bytes(config.model, adapter.base_dtype, held)
    return nn.parameter_bytes(config.model, held)


def adapter_of(config: Any) -> AdapterConfig | None:
    """The adapter that a config trains, if it trains one."""
    adapter = getattr(config, "adapter", None)
    return None if adapter is None or adapter.kind == "none" else adapter


def working_bytes(config: Any, batch: int, axes: Axes = ALONE) -> int:
    """Bytes that one member in flight takes on top of the stored state."""
    model, adapter = config.model, adapter_of(config)
    parameters = 4 * _count(held_shapes(trained_tensors(config), axes))
    carried = _stored(config, axes)
    activations = nn.activation_bytes(
        model, batch, model.context, model.remat, unrolled(config), tensor=axes.tensor
    )
    if adapter is not None:
        activations = int(FROZEN_SHARE * activations)
    return carried + WORKING_COPIES * parameters + activations + gathered_bytes(config, axes)


def gathered_bytes(config: Any, axes: Axes) -> int:
    """Bytes of the weights that are gathered over fsdp while they are used: of one layer and the
    next, and of all outside the layers."""
    if axes.fsdp == 1:
        return 0
    whole = held_shapes(nn.tensors(config.model), Axes(tensor=axes.tensor))
    layers = {name: shape for name, shape in whole.items() if name.startswith("blocks/")}
    ahead = min(LAYERS_GATHERED, config.model.num_layers)
    return 4 * (_count(whole) - _count(layers) + ahead * _count(layers) // config.model.num_layers)


def unrolled(config: Any) -> bool:
    """Whether the layer loop is laid out: on a CPU up to LAYERS_UNROLLED deep, unless told."""
    if config.execution.unroll is not None:
        return config.execution.unroll
    return _on_cpu() and config.model.num_layers <= LAYERS_UNROLLED


def device_limit(config: Any) -> int | None:
    """Bytes that JAX may use on a device: those that the config states, else what it tells; virtual
    CPU devices share what the machine has free."""
    if config.execution.memory_gib is not None:
        return int(config.execution.memory_gib * 2**30)
    import jax

    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    return available_memory() // max(jax.local_device_count(), 1) if _on_cpu() else None


def available_memory() -> int:
    """Bytes of main memory free to use, or the largest integer where the system won't say."""
    try:
        with open("/proc/meminfo") as lines:
            found = dict(line.split(":", 1) for line in lines)
        return int(found["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 2**63 - 1


def default_chunk(config: Any, rows: int, axes: Axes = ALONE) -> int:
    """As few and equal chunks as fit; but 1 on a CPU, which is exact and fastest there, unless
    members share a base: all products with it are one then, which is faster on a CPU too."""
    limit = device_limit(config)
    if limit is None or (_on_cpu() and adapter_of(config) is None):
        return 1
    free = USABLE * limit - rows * _stored(config, axes) - shared_bytes(config, axes)
    micro = config.data.batch_size // axes.batch // config.execution.accumulate
    most = max(1, int(free // working_bytes(config, micro, axes)))
    return math.ceil(rows / math.ceil(rows / most))


PBT_MEMBERS = "(pbt.members, or --pbt.beside False, which halves them)"


def check_fits(
    plan: MemoryPlan, config: Any, rows: int, chunk: int, fewer: str = PBT_MEMBERS
) -> None:
    """Raises UsageError where the plan does not fit, naming the option that would make it fit.

    `fewer` says in brackets how members are made fewer.
    """
    if plan.fits or plan.limit is None:
        return
    gib = lambda size: f"{size / 2**30:.2f} GiB"
    need = f"the population needs {gib(plan.total)} on each device, which has {gib(plan.limit)}"
    spare = USABLE * plan.limit - plan.shared - plan.state - plan.data
    each = plan.working / chunk
    if spare >= each and chunk > 1:
        raise UsageError(f"{need}; --execution.chunk {int(spare // each)} would fit")
    one_row = plan.state / rows
    most = int((USABLE * plan.limit - plan.shared - plan.data - each) // one_row)
    if most >= 1:
        raise UsageError(
            f"{need}; {most} members a device would fit: fewer members {fewer}, or more devices"
        )
    remat = "" if config.model.remat else " or --model.remat True"
    fsdp = smallest_fsdp(config, plan.limit - plan.data)
    split = f"--mesh fsdp={fsdp} would fit one, and " if fsdp is not None and fsdp > 1 else ""
    raise UsageError(
        f"{need}; not even one member fits: {split}--execution.accumulate "
        f"{2 * config.execution.accumulate}{remat} needs less"
    )


def smallest_fsdp(config: Any, limit: int, most: int = 1024) -> int | None:
    """The fewest devices that hold one member, its parameters and batch split over them, in `limit`
    bytes each; None where `most` of them can't."""
    sequences = config.data.batch_size // config.execution.accumulate
    for fsdp in range(1, min(sequences, most) + 1):
        if sequences % fsdp:
            continue
        axes = Axes(fsdp=fsdp)
        state = shared_bytes(config, axes) + ROWS_A_SHARD * _stored(config, axes)
        if state + working_bytes(config, sequences // fsdp, axes) <= USABLE * limit:
            return fsdp
    return None


def trained_tensors(config: Any) -> dict[str, tuple[int, ...]]:
    """Shape of what a member trains, by path: the model, or an adapter; and a head, if any."""
    adapter, outputs = adapter_of(config), getattr(config, "outputs", 0)
    model = config.model
    found = nn.tensors(model) if adapter is None else adapters.tensors(adapter, model)
    return found | (nn.head_tensors(config.model, outputs) if outputs else {})


def count_trained(config: Any) -> int:
    """Numbers that a member trains."""
    return _count(trained_tensors(config))


def _stored(config: Any, axes: Axes = ALONE) -> int:
    names = [name.removeprefix("optimizer.") for name in config.space if "optimizer." in name]
    adapter, outputs = adapter_of(config), getattr(config, "outputs", 0)
    beside = 0
    if outputs:
        head = nn.head_tensors(config.model, outputs)
        which = optimizers.present(config.optimizer, names)
        held = held_shapes(head, axes)
        kept = lambda shapes: optimizers.state_bytes(config.optimizer, shapes, which, held)
        beside = 4 * _count(held) + kept(head) - optimizers.state_bytes(config.optimizer, {}, which)
    if adapter is not None:
        return beside + adapter_bytes(adapter, config.model, config.optimizer, names, axes)
    return beside + member_bytes(config.model, config.optimizer, names, axes)


def _count(shapes: Mapping[str, tuple[int, ...]]) -> int:
    return sum(math.prod(shape) for shape in shapes.values())


def _on_cpu() -> bool:
    import jax  # late: to ask for a size loads nothing heavy

    return jax.default_backend() == "cpu"
