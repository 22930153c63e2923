"""A run made of stages, each a fork of the last: pre-training, longer context, annealing."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jaxhpo.config import from_dict
from jaxhpo.config.forks import PRESETS
from jaxhpo.config.loading import read_toml
from jaxhpo.config.run import ForkRun, TrainRun
from jaxhpo.errors import Interrupted, UsageError
from jaxhpo.population.launchers import launched
from jaxhpo.record.directory import LOG, RunDirectory
from jaxhpo.record.paths import check_name
from jaxhpo.record.redaction import redact_text
from jaxhpo.study.inheritance import inherit
from jaxhpo.study.outcome import Outcome
from jaxhpo.study.runs import execute, resume

FILE = "stages.toml"
"""The file that a run of stages was made from, kept in its directory."""

_ABOUT = ("name", "preset", "steps")
_PRESETS = tuple(name for name in PRESETS if name != "extend")


@dataclass(frozen=True)
class Stage:
    """One stage: its own length in steps, how it goes on from the last, and the options it sets."""

    name: str
    preset: str
    steps: int
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Stages:
    """All stages of a file; `base` has the options that hold from the first one on."""

    base: Mapping[str, Any]
    stages: tuple[Stage, ...]


def check_alone() -> None:
    """Raises UsageError where a launcher has started several processes."""
    if launched() > 1:
        raise UsageError(
            "stages run in one process, and the launcher has started several; allowed: one, or "
            "each stage as a jaxhpo fork of the last"
        )


def run_stages(file: Path, out: str | None = None, again: str = "never") -> tuple[Outcome, ...]:
    """Trains all stages of a file into one directory, a run directory for each.

    Stages that have finished are left as they are, and one that was stopped is carried on, where
    `again` is "auto". Raises UsageError before anything runs where the file is no such file.
    """
    check_alone()
    text = redact_text(_text(file))
    stages = read_stages(file)
    if again == "auto" and out is not None and (Path(out) / FILE).exists():
        return resume_stages(Path(out), text)
    home = RunDirectory.create(out, prefix="stages")
    home.write_text(FILE, text)
    return _carry_out(home, stages)


def resume_stages(path: Path, text: str | None = None) -> tuple[Outcome, ...]:
    """Carries a run of stages on. Raises UsageError where `text` is not the file it was made of."""
    check_alone()
    if text is not None and _text(path / FILE) != text:
        raise UsageError(
            f"{path} was made from another file, kept there as {FILE}; give another out"
        )
    home = RunDirectory(path.absolute())
    return _carry_out(home, read_stages(path / FILE))


def read_stages(file: Path) -> Stages:
    """The stages of a TOML file: options of train on top, then `[[stages]]` tables.

    Raises UsageError for whatever is not understood, before anything runs.
    """
    table = read_toml(file)
    given = table.pop("stages", None)
    if not isinstance(given, list) or not given or not all(isinstance(x, dict) for x in given):
        raise UsageError(f"{file}: no stages; write a [[stages]] table for each")
    for name in ("steps", "out", "resume", "command"):
        if name in table:
            raise UsageError(
                f"{file}: {name} stands above the stages; allowed: in none, or in each"
            )
    stages = tuple(_stage(file, number, dict(row)) for number, row in enumerate(given, start=1))
    names = [stage.name for stage in stages]
    if len(set(names)) < len(names):
        raise UsageError(f"{file}: two stages have one name: {', '.join(names)}")
    _check(file, Stages(table, stages))
    return Stages(table, stages)


def _stage(file: Path, number: int, row: dict[str, Any]) -> Stage:
    where = f"{file}: stage {number}"
    name, preset, steps = (row.pop(key, None) for key in _ABOUT)
    preset = "continue" if preset is None else preset
    if not isinstance(name, str):
        raise UsageError(f"{where} has no name; write name = 'pretrain'")
    check_name(f"{number}-{name}")
    if preset not in _PRESETS:
        raise UsageError(f"{where}: preset={preset!r}; allowed: {', '.join(_PRESETS)}")
    if type(steps) is not int or steps < 1:
        raise UsageError(f"{where}: steps={steps!r}; allowed: a whole number, its own length")
    for key in ("run", "out", "resume", "space"):
        if key in row:
            raise UsageError(f"{where}: {key} is not a stage's to set; leave it out")
    return Stage(name, preset, steps, row)


def _check(file: Path, stages: Stages) -> None:
    """Every stage's options once, on top of those before it."""
    config: Any = ForkRun()
    try:
        from_dict(TrainRun, stages.stages[0].options, from_dict(TrainRun, stages.base))
        config = from_dict(ForkRun, stages.base, config)
        for stage in stages.stages:
            config = from_dict(ForkRun, stage.options, replace(config, steps=stage.steps))
    except UsageError as error:
        raise UsageError(f"{file}: {error}") from None


def _carry_out(home: RunDirectory, stages: Stages) -> tuple[Outcome, ...]:
    outcomes: list[Outcome] = []
    try:
        with home.lock():
            for number, stage in enumerate(stages.stages, start=1):
                path = home.path / f"{number}-{stage.name}"
                before = outcomes[-1].directory if outcomes else None
                outcomes.append(_run(stages, stage, path, before))
    except Interrupted:
        raise Interrupted(f"jaxhpo resume {home.path}") from None
    return tuple(outcomes)


def _run(stages: Stages, stage: Stage, path: Path, before: Path | None) -> Outcome:
    if (path / LOG).exists():
        return resume(path)
    if before is None:
        plain = replace(from_dict(TrainRun, stages.base), steps=stage.steps)
        return execute(replace(from_dict(TrainRun, stage.options, plain), out=str(path)))
    return execute(replace(fork_of(stage, before), out=str(path)))


def fork_of(stage: Stage, before: Path) -> ForkRun:
    """A stage as a fork of the run before it: what it does not set is that run's."""
    parent = inherit(before)
    config = from_dict(ForkRun, stage.options, replace(parent, preset=stage.preset, at=("last",)))
    if stage.preset == "decay":
        return replace(config, decay=(stage.steps,))
    start = 0 if stage.preset == "finetune" else parent.steps
    return replace(config, steps=start + stage.steps)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"config file {file}: {getattr(error, 'strerror', None) or error}"
        ) from None
