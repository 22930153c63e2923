"""What a run will compile, hold and compute, before anything runs."""

from dataclasses import dataclass

from jaxhpo import nn
from jaxhpo.config.run import Run
from jaxhpo.population.cache import use_compilation_cache
from jaxhpo.population.config import prepare_backend
from jaxhpo.population.memory import MemoryPlan
from jaxhpo.study.setup import Setup, prepare


@dataclass(frozen=True)
class Forecast:
    """A run's compile, memory and cost plan; printing it gives a table."""

    programs: tuple[str, ...]
    members: int
    rows: int
    shards: int
    chunk: int
    parameters: int
    memory: MemoryPlan
    member_steps: int
    probe_steps: int
    tokens: int
    flops: float

    def __str__(self) -> str:
        rows = [
            ("programs compiled", f"{len(self.programs)}: {', '.join(self.programs)}"),
            ("members", f"{self.members} of {self.parameters:,} parameters"),
            ("placed", f"{self.rows} rows on {self.shards} shard(s), {self.chunk} at a time"),
            ("memory a device", _memory(self.memory)),
            ("member-steps", f"{self.member_steps:,} trained, {self.probe_steps:,} in probes"),
            ("probes' share", f"{self.probe_share:.1%} of all steps"),
            ("tokens", f"{self.tokens:,} with the probes'"),
            ("operations", f"{self.flops:.3g} floating-point"),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)

    @property
    def probe_share(self) -> float:
        return self.probe_steps / max(self.member_steps + self.probe_steps, 1)


def plan(config: Run) -> Forecast:
    """The plan of a run. Raises UsageError where it can't run or does not fit."""
    prepare_backend(config.execution, config.members)
    use_compilation_cache(config.execution)
    return forecast(prepare(config))


def forecast(setup: Setup) -> Forecast:
    """The plan of a run that is set up; `prepare` has refused what does not fit."""
    config, engine = setup.config, setup.engine
    member_steps, probes = setup.extent.trained, setup.extent.probed
    tokens = (member_steps + probes) * setup.tokens_per_step
    return Forecast(
        programs=programs(setup),
        members=config.members,
        rows=engine.size,
        shards=engine.shards,
        chunk=engine.chunk,
        parameters=nn.count_parameters(config.model),
        memory=setup.memory,
        member_steps=member_steps,
        probe_steps=probes,
        tokens=tokens,
        flops=tokens * nn.flops_per_token(config.model, config.model.context),
    )


def programs(setup: Setup) -> tuple[str, ...]:
    """The kinds of program that a run compiles, one of each: sizes and data layouts are one."""
    return ("assemble", "train", "evaluate", *(["probe"] if setup.extent.probe else []), "sample")


def _memory(plan: MemoryPlan) -> str:
    mib = lambda size: f"{size / 2**20:,.1f}"
    limit = "" if plan.limit is None else f" of {mib(plan.limit)}"
    parts = f"state {mib(plan.state)}, working {mib(plan.working)}, data {mib(plan.data)}"
    return f"{mib(plan.total)} MiB{limit} ({parts})"
