"""What a run will compile, hold and compute, before anything runs."""

from dataclasses import dataclass, replace

import jax

from jaxhpo.config.run import Run, SearchRun
from jaxhpo.population.cache import use_compilation_cache
from jaxhpo.population.chips import chip_of
from jaxhpo.population.config import prepare_backend
from jaxhpo.population.memory import MemoryPlan, count_trained
from jaxhpo.study.compile_group import CompileGroup, label, program_names
from jaxhpo.study.meshes import MeshChoices, mesh_choices
from jaxhpo.study.opening import total
from jaxhpo.study.setup import Setup, combinations, prepare
from jaxhpo.study.streams import layout_of


@dataclass(frozen=True)
class GroupForecast:
    """One compile group. `trials` is None where points depend on results."""

    name: str
    trials: int | None
    places: tuple[int, ...]
    """of each size that is compiled, the largest first"""
    parameters: int
    memory: MemoryPlan
    flops_per_step: float
    programs: tuple[str, ...]


@dataclass(frozen=True)
class Forecast:
    """A run's compile, memory and cost plan; printing it gives a table.

    Where points depend on results, groups and programs are the most that there may be, and
    operations those of the largest group.
    """

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
    groups: tuple[GroupForecast, ...] = ()
    trials: int | None = None
    """that a search starts at most"""
    alone_steps: int = 0
    """member-steps of the same trials one by one, each to its end"""
    foreseen: bool = True
    mesh: str = ""
    waves: int = 1
    """of a population that does not fit at once"""
    meshes: MeshChoices | None = None
    """what other meshes would hold and take, where there are several devices"""

    def __str__(self) -> str:
        rows = self._rows() if self.trials is None else [*self._rows(), *self._compared()]
        width = max(len(name) for name, _ in rows)
        lines = [f"{name:<{width}}  {value}" for name, value in rows]
        meshes = [] if self.meshes is None else ["", str(self.meshes)]
        return "\n".join([*lines, *self._group_table(), *meshes])

    def _rows(self) -> list[tuple[str, str]]:
        most = "" if self.foreseen else "at most "
        single = len(self.groups) == 1 and len(self.groups[0].places) == 1
        kinds = f": {', '.join(self.programs)}" if single else ""
        waves = f", in {self.waves} waves" if self.waves > 1 else ""
        at_once = f"{self.chunk} at a time{waves}"
        return [
            ("programs compiled", f"{most}{len(self.programs)}{kinds}"),
            ("members", f"{self.members} of {self.parameters:,} parameters"),
            ("placed", f"{self.rows} rows on {self.shards} shard(s), {at_once}"),
            ("mesh", self.mesh),
            ("memory a device", _memory(self.memory)),
            ("member-steps", f"{self.member_steps:,} trained, {self.probe_steps:,} in probes"),
            ("probes' share", f"{self.probe_share:.1%} of all steps"),
            ("tokens", f"{self.tokens:,} with the probes'"),
            ("operations", f"{most}{self.flops:.3g} floating-point"),
        ]

    def _compared(self) -> list[tuple[str, str]]:
        """The search against the same trials one after another, each a program of its own."""
        kinds = 3  # initialise, train, evaluate
        trials = self.trials or 0
        made = self.member_steps + self.probe_steps
        return [
            (
                "one by one",
                f"{kinds * trials} programs ({kinds} a trial) and {self.alone_steps:,} "
                f"member-steps, {self.alone_steps / max(made, 1):.1f} times as many",
            )
        ]

    def _group_table(self) -> list[str]:
        if len(self.groups) < 2:
            return []
        head = ("compile group", "trials", "places", "parameters", "memory", "FLOP a step")
        body = [
            (
                group.name,
                "?" if group.trials is None else str(group.trials),
                " > ".join(map(str, group.places)),
                f"{group.parameters:,}",
                f"{group.memory.total / 2**20:,.1f} MiB",
                f"{group.flops_per_step:.3g}",
            )
            for group in self.groups
        ]
        widths = [max(len(row[i]) for row in (head, *body)) for i in range(len(head))]
        aligned = [
            "  ".join(
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in (head, *body)
        ]
        return ["", *aligned]

    @property
    def probe_share(self) -> float:
        return self.probe_steps / max(self.member_steps + self.probe_steps, 1)


def plan(config: Run, chip: str | None = None, chips: int | None = None) -> Forecast:
    """The plan of a run. Raises UsageError where it can't run or does not fit.

    Meshes are compared for `chips` (default: the devices used) of a kind `chip` (default: the one
    at hand, or on a CPU h100). A shared database is not asked: the plan is that of a search alone.
    """
    if isinstance(config, SearchRun):
        config = replace(config, search=replace(config.search, storage=None))
    prepare_backend(config.execution, config.members)
    use_compilation_cache(config.execution)
    return forecast(prepare(config), chip, chips)


def forecast(setup: Setup, chip: str | None = None, chips: int | None = None) -> Forecast:
    """The plan of a run that is set up; `prepare` has refused what does not fit."""
    config, extent, groups = setup.config, setup.extent, setup.groups
    if setup.opening.foreseen is None:
        for statics in combinations(setup.space):
            groups.of(dict(statics))
    for point in () if groups.opened else [setup.scheduler.first().assignments[0].point]:
        groups.of(point)
    forecasts = tuple(_group(setup, group) for group in groups.opened.values())
    largest = max(forecasts, key=lambda group: group.flops_per_step)
    engine = next(iter(groups.opened.values())).engines[0]
    steps = extent.trained + extent.probed
    per_step, tokens = _mean(setup, forecasts)
    foreseen, trials = setup.opening.foreseen, None
    if isinstance(config, SearchRun):
        trials = config.search.trials if foreseen is None else len(foreseen)
        trials = trials if config.space else None
    return Forecast(
        programs=(*(name for group in forecasts for name in group.programs), "sample"),
        members=extent.held,
        rows=sum(group.places[0] for group in forecasts),
        shards=engine.shards,
        chunk=engine.chunk,
        parameters=largest.parameters,
        memory=total(setup.opening.needs.values()),
        member_steps=extent.trained,
        probe_steps=extent.probed,
        tokens=round(steps * tokens),
        flops=steps * (per_step if foreseen is not None else largest.flops_per_step),
        groups=forecasts,
        trials=trials,
        alone_steps=(trials or 0) * config.steps,
        foreseen=foreseen is not None or not setup.space.static,
        mesh=str(engine.placement.axes),
        waves=max(getattr(group, "waves", 1) for group in groups.opened.values()),
        meshes=_meshes(setup, chip, chips or engine.placement.axes.devices),
    )


def _meshes(setup: Setup, chip: str | None, devices: int) -> MeshChoices | None:
    """Other meshes for the config's own model, where there is more than one device."""
    if devices == 1:
        return None
    known = chip_of(jax.devices()[0].device_kind)
    named = chip or (DEFAULT_CHIP if known is None else known[0])
    extent = setup.extent
    streams = layout_of(min(extent.starts, extent.held))
    return mesh_choices(
        setup.config, extent.held, named, devices, extent.steps, extent.probe, streams
    )


DEFAULT_CHIP = "h100"
"""What meshes are compared on where the devices are none of the known chips."""


def _group(setup: Setup, group: CompileGroup) -> GroupForecast:
    config = setup.opening.configs[group.statics]
    return GroupForecast(
        name=label(group.statics) or "all",
        trials=None if setup.opening.foreseen is None else setup.opening.trials_of(group.statics),
        places=tuple(engine.size for engine in group.engines),
        parameters=count_trained(config),
        memory=setup.opening.needs[group.statics],
        flops_per_step=group.flops_per_step,
        programs=program_names(group),
    )


def _mean(setup: Setup, forecasts: tuple[GroupForecast, ...]) -> tuple[float, float]:
    """Floating-point operations and tokens of a member-step, each trial counting alike."""
    weights = [group.trials or 1 for group in forecasts]
    tokens = [group.tokens_per_step for group in setup.groups.opened.values()]
    mean = lambda values: sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
    return mean([group.flops_per_step for group in forecasts]), mean(tokens)


def _memory(plan: MemoryPlan) -> str:
    mib = lambda size: f"{size / 2**20:,.1f}"
    limit = "" if plan.limit is None else f" of {mib(plan.limit)}"
    base = f"base {mib(plan.shared)}, " if plan.shared else ""
    parts = f"{base}state {mib(plan.state)}, working {mib(plan.working)}, data {mib(plan.data)}"
    return f"{mib(plan.total)} MiB{limit} ({parts})"
