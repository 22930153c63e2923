"""A few steps of a run under JAX's profiler, and what the compiler says that each program costs."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax

from jaxhpo.config import to_toml
from jaxhpo.config.run import Run, SearchRun
from jaxhpo.errors import UsageError
from jaxhpo.population.cache import use_compilation_cache
from jaxhpo.population.config import prepare_backend
from jaxhpo.record.directory import CONFIG, RunDirectory
from jaxhpo.record.history import history
from jaxhpo.search.plan import Parent, Plan
from jaxhpo.study.compile_group import CompileGroup
from jaxhpo.study.config_of import config_of, without_secrets
from jaxhpo.study.groups import compile_all
from jaxhpo.study.origin import Origin
from jaxhpo.study.places import Places
from jaxhpo.study.setup import Setup, prepare

FOLDER = "profile"
"""Where in a run directory a trace is."""

STEPS = 5


@dataclass(frozen=True)
class Cost:
    """What the compiler itself counts of a program: loops of unknown length, such as the steps,
    count one round; None is what the backend does not tell."""

    program: str
    flops: float | None
    bytes_accessed: float | None
    """read and written by its operations"""
    temporary_bytes: int | None
    """held while it runs, beside what goes in and comes out"""


@dataclass(frozen=True)
class Profile:
    """A trace of a few steps, and the programs' costs; printing it says how to look at it."""

    directory: Path
    trace: Path
    """file for Perfetto"""
    steps: int
    seconds: float
    """of the traced segment"""
    model_flops: float
    """of one step of every member that was traced, by the formula that MFU is counted with"""
    costs: tuple[Cost, ...]

    def __str__(self) -> str:
        head = ("program", "FLOP", "bytes accessed", "temporary")
        rows = [
            (
                cost.program,
                _short(cost.flops),
                _short(cost.bytes_accessed),
                "?" if cost.temporary_bytes is None else f"{cost.temporary_bytes / 2**20:,.1f} MiB",
            )
            for cost in self.costs
        ]
        widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
        aligned = [
            f"{row[0]:<{widths[0]}}  "
            + "  ".join(f"{x:>{w}}" for x, w in zip(row[1:], widths[1:], strict=True))
            for row in (head, *rows)
        ]
        return "\n".join(
            [
                *aligned,
                "",
                "As the compiler counts: for one device, and of a loop whose length it does not",
                "know one round. One step of all members traced takes "
                f"{_short(self.model_flops)} FLOP by the",
                "formula that MFU is counted with.",
                "",
                f"trace of {self.steps} steps ({self.seconds:.3g} s)  {self.directory}",
                f"  Perfetto     open {self.trace} at https://ui.perfetto.dev",
                f"  XProf        pip install xprof && xprof --port 8791 {self.directory}",
                f"  TensorBoard  pip install tensorboard xprof && tensorboard --logdir "
                f"{self.directory}",
            ]
        )

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON."""
        return {**asdict(self), "directory": str(self.directory), "trace": str(self.trace)}


def profile(config: Run | Path | str, steps: int = STEPS) -> Profile:
    """Traces `steps` steps of what a config, or a run directory's config, trains first.

    A run directory gets the trace beside its log and is left as it is otherwise; a config gets a
    new directory, its `out` or `runs/profile-0001`. Nothing of a search's database is asked. Raises
    UsageError for what can't run, and where a run is being written.
    """
    if steps < 1:
        raise UsageError(f"trace-steps={steps}; allowed: 1 or more")
    if isinstance(config, Run):
        setup = _prepare(config, None)
        run = RunDirectory.create(config.out, prefix="profile")
        run.write_text(CONFIG, to_toml(without_secrets(setup.config)))
        return _profile(setup, run, steps)
    run = RunDirectory.open(config)
    with run.quiet():
        past = history(run.log)
        origin = Origin.of_event(past.fork) if past.fork else None
        return _profile(_prepare(config_of(config, past), origin), run, steps)


def _prepare(config: Run, origin: Origin | None) -> Setup:
    if isinstance(config, SearchRun):
        config = replace(config, search=replace(config.search, storage=None))
    prepare_backend(config.execution, config.members)
    use_compilation_cache(config.execution)
    return prepare(config, origin=origin)


def _profile(setup: Setup, run: RunDirectory, steps: int) -> Profile:
    plan = _beginning(setup.scheduler.first(), steps)
    groups = [(group, part) for group, part in setup.groups.parts(plan) if part.assignments]
    if not groups:
        raise UsageError("no trial of the first segment can be trained")
    for group, _ in groups:
        group.places = Places()  # of a fork: its trunk is not looked at
    compile_all([group for group, _ in groups], lambda *_: None)
    _run(groups)  # the first call of a program also loads it
    onward = [(group, _carried_on(part)) for group, part in groups]
    folder = run.path / FOLDER
    with (
        jax.profiler.trace(str(folder), create_perfetto_trace=True),
        jax.profiler.StepTraceAnnotation("segment", step_num=0),
    ):
        seconds = _run(onward)
    traces = folder.rglob("perfetto_trace.json.gz")
    return Profile(
        directory=folder,
        trace=max(traces, key=lambda path: path.stat().st_mtime),
        steps=plan.max_steps,
        seconds=seconds,
        model_flops=sum(group.flops_per_step * len(part.assignments) for group, part in groups),
        costs=tuple(cost for group, _ in groups for cost in costs(group)),
    )


def _beginning(plan: Plan, steps: int) -> Plan:
    """The rows of a plan as newborns that make a few steps."""
    rows = (
        replace(row, parent=None, steps=min(row.steps, steps), probe=min(row.probe, steps))
        for row in plan.assignments
    )
    return Plan(tuple(rows))


def _carried_on(plan: Plan) -> Plan:
    return Plan(tuple(replace(row, parent=Parent(row.trial)) for row in plan.assignments))


def _run(groups: Sequence[tuple[CompileGroup, Plan]]) -> float:
    """Trains and measures each group's part, to the last number on the host; seconds."""
    begin = time.perf_counter()
    for group, part in groups:
        trained = group.run(part, _no_checkpoint)
        jax.device_get((trained.metrics, trained.raw, trained.scores))
    return time.perf_counter() - begin


def _no_checkpoint(trial: int, step: int) -> Any:
    raise LookupError(f"trial {trial} at step {step} is asked for, and everybody is newborn")


def costs(group: CompileGroup) -> tuple[Cost, ...]:
    """What the compiler says of each of a group's programs, which are compiled if they are not."""
    found = []
    for job in group.jobs():
        program: Any = job.engine.program(job.kind, *job.arguments)
        counted, memory = _counted(program), program.memory_analysis()
        found.append(
            Cost(
                program=job.name,
                flops=counted.get("flops"),
                bytes_accessed=counted.get("bytes accessed"),
                temporary_bytes=None if memory is None else int(memory.temp_size_in_bytes),
            )
        )
    return tuple(found)


def _counted(program: Any) -> Mapping[str, float]:
    """The compiler's cost analysis; empty where the backend has none."""
    found = program.cost_analysis()
    return (found[0] if isinstance(found, list) else found) or {}


def _short(value: float | None) -> str:
    return "?" if value is None else f"{value:.3g}"
