"""How much memory a population takes on a device, by a closed formula: no compiler is asked."""

import math
from dataclasses import dataclass
from typing import Any

from jaxhpo import nn
from jaxhpo.errors import UsageError
from jaxhpo.nn.config import ModelConfig

USABLE = 0.92
"""Share of a device's memory that may be planned for; the rest is the runtime's."""

LAYERS_UNROLLED = 12
"""Depth up to which a CPU runs the layer loop laid out; more would take long to compile."""

WORKING_COPIES = 3
"""Copies of one member's parameters that a step holds besides its state: gradient, update, sum."""


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

    @property
    def total(self) -> int:
        return self.state + self.working + self.data

    @property
    def fits(self) -> bool:
        return self.limit is None or self.total <= USABLE * self.limit


def memory_plan(config: Any, rows: int, chunk: int, segment: int, probe: int) -> MemoryPlan:
    """The plan for `rows` members on a device, `chunk` at once, in segments of `segment` steps.

    `config` has the sections of a run; lengths are steps; the batch is split over execution.data.
    """
    batch = config.data.batch_size // config.execution.data
    micro = batch // config.execution.accumulate
    tokens = config.model.context + 1
    staged = 4 * batch * tokens * (2 * segment + probe + config.data.eval_batches)
    metrics = 3 * 4 * rows * segment
    return MemoryPlan(
        state=rows * member_bytes(config.model, config.optimizer.moment_dtype),
        working=chunk * working_bytes(config, micro),
        data=staged + metrics,
        limit=device_limit(),
    )


def member_bytes(model: ModelConfig, moment_dtype: str = "float32") -> int:
    """Bytes of one member: parameters and second moments in float32, first moments as stated."""
    first = 2 if moment_dtype == "bfloat16" else 4
    return nn.count_parameters(model) * (4 + first + 4) + 8


def working_bytes(config: Any, batch: int) -> int:
    """Bytes that one member in flight takes on top of the stored state."""
    model = config.model
    parameters = 4 * nn.count_parameters(model)
    carried = member_bytes(model, config.optimizer.moment_dtype)
    activations = nn.activation_bytes(model, batch, model.context, model.remat, unrolled(config))
    return carried + WORKING_COPIES * parameters + activations


def unrolled(config: Any) -> bool:
    """Whether the layer loop is laid out: on a CPU up to LAYERS_UNROLLED deep, unless told."""
    if config.execution.unroll is not None:
        return config.execution.unroll
    return _on_cpu() and config.model.num_layers <= LAYERS_UNROLLED


def device_limit() -> int | None:
    """Bytes that JAX may use on a device; virtual CPU devices share what the machine has free."""
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


def default_chunk(config: Any, rows: int) -> int:
    """1 on a CPU, which is exact and fastest there; elsewhere as few and equal chunks as fit."""
    limit = device_limit()
    if _on_cpu() or limit is None:
        return 1
    free = USABLE * limit - rows * member_bytes(config.model, config.optimizer.moment_dtype)
    micro = config.data.batch_size // config.execution.data // config.execution.accumulate
    most = max(1, int(free // working_bytes(config, micro)))
    return math.ceil(rows / math.ceil(rows / most))


def check_fits(plan: MemoryPlan, config: Any, rows: int, chunk: int) -> None:
    """Raises UsageError where the plan does not fit, naming the option that would make it fit."""
    if plan.fits or plan.limit is None:
        return
    gib = lambda size: f"{size / 2**30:.2f} GiB"
    need = f"the population needs {gib(plan.total)} on each device, which has {gib(plan.limit)}"
    spare = USABLE * plan.limit - plan.state - plan.data
    each = plan.working / chunk
    if spare >= each and chunk > 1:
        raise UsageError(f"{need}; --execution.chunk {int(spare // each)} would fit")
    one_row = plan.state / rows
    most = int((USABLE * plan.limit - plan.data - each) // one_row)
    if most >= 1:
        raise UsageError(
            f"{need}; {most} members a device would fit: fewer members (pbt.members, or "
            f"--pbt.beside False, which halves them), or more devices"
        )
    remat = "" if config.model.remat else " or --model.remat True"
    raise UsageError(
        f"{need}; not even one member fits: --execution.accumulate "
        f"{2 * config.execution.accumulate}{remat} needs less"
    )


def _on_cpu() -> bool:
    import jax  # late: to ask for a size loads nothing heavy

    return jax.default_backend() == "cpu"
