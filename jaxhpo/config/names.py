"""Which dotted names a config has, which are traced, and how one is replaced."""

import dataclasses
from typing import TYPE_CHECKING, Any, TypeVar

from jaxhpo.adapters.config import TRACED as ADAPTER_TRACED
from jaxhpo.config.fields import flatten, hints, is_section, options, suggest
from jaxhpo.config.loading import from_dict
from jaxhpo.errors import UsageError
from jaxhpo.nn.config import HEAD_TRACED, DropoutConfig, LossConfig
from jaxhpo.optimizers.config import TRACED as OPTIMIZER_TRACED
from jaxhpo.schedules.config import TRACED as SCHEDULE_TRACED

if TYPE_CHECKING:
    from jaxhpo.config.run import Run

C = TypeVar("C", bound="Run")

TRACED: dict[str, frozenset[str]] = {
    "dropout": frozenset(hints(DropoutConfig)),
    "loss": frozenset(hints(LossConfig)),
    "schedule": SCHEDULE_TRACED,
    "optimizer": OPTIMIZER_TRACED,
    "adapter": ADAPTER_TRACED,
    "head": HEAD_TRACED,
}
"""Section -> the fields whose values are arrays: a new value is no new program."""

PER_LAYER = ("dropout.attention", "dropout.residual", "dropout.mlp")
"""Names that may end in a layer's number."""


LENGTH = "epochs"
"""How long a trial is: no new program, for steps are traced."""

COMPARABLE = frozenset({"data.batch_size"})
"""What of the data a search may change: losses before and after can still be compared."""


def traced_names(config: "Run") -> tuple[str, ...]:
    """Dotted names of all traced hyperparameters, those of single layers too."""
    there = [section for section in TRACED if hasattr(config, section)]
    names = [f"{section}.{name}" for section in there for name in sorted(TRACED[section])]
    layers = range(config.model.num_layers)
    return (*names, *(f"{name}.{layer}" for name in PER_LAYER for layer in layers))


def known_names(config: "Run") -> tuple[str, ...]:
    """Every dotted name that a file, a flag or a space may use with this config."""
    leaves = [name for name in options(type(config)) if name != "space"]
    return (*leaves, *(name for name in traced_names(config) if name not in leaves))


def is_static(name: str) -> bool:
    """Would another value of this name need another compiled program?"""
    if name == LENGTH:
        return False
    section, _, field = name.partition(".")
    traced = TRACED.get(section, frozenset())
    return field not in traced and not (
        name.rpartition(".")[0] in PER_LAYER and name.rpartition(".")[2].isdigit()
    )


def searchable_names(config: "Run") -> tuple[str, ...]:
    """The names that may be dimensions of a space: what is trained, not where or how it is kept."""
    sections = ("model.", "dropout.", "loss.", "schedule.", "optimizer.", "data.")
    sections += ("adapter.", "head.")
    return tuple(n for n in known_names(config) if n.startswith(sections) or n == LENGTH)


def check_space(config: "Run") -> None:
    """Raises UsageError for a dimension that is no name of this config, naming the nearest."""
    known = searchable_names(config)
    for name in config.space:
        if name not in known:
            raise UsageError(f"unknown dimension {name} in space; {suggest(name, known)}")


def check_comparable(config: "Run") -> None:
    """Raises UsageError for a dimension that would change what a loss is measured on."""
    for name in config.space:
        if name.startswith("data.") and name not in COMPARABLE:
            raise UsageError(
                f"{name} in space would measure losses on other text or tokens, which can't be "
                f"compared; allowed of data: {', '.join(sorted(COMPARABLE))}"
            )


def fixed_dimensions(config: "Run") -> tuple[str, ...]:
    """The dimensions of a config's space that no population can search in one program."""
    return tuple(name for name in config.space if is_static(name))


def replace(config: C, name: str, value: Any) -> C:
    """The config with one value changed by dotted name, as strictly as a file would.

    >>> from jaxhpo.config import TrainRun
    >>> replace(TrainRun(), "schedule.peak_lr", 0.1).schedule.peak_lr
    0.1
    """
    parts = name.split(".")
    if parts[0] == "space" and len(parts) > 1:
        space = {**config.space, name.removeprefix("space."): value}
        return dataclasses.replace(config, space=space)
    if name not in flatten(config) and name.rpartition(".")[0] in PER_LAYER:
        return _replace_layer(config, name, value)
    known = options(type(config))
    sections = {each for each, hint in hints(type(config)).items() if is_section(hint)}
    if name not in known and name not in sections:
        raise UsageError(f"unknown option {name}; {suggest(name, known_names(config))}")
    table: Any = value
    for part in reversed(parts):
        table = {part: table}
    return from_dict(type(config), table, config)


def _replace_layer(config: C, name: str, value: Any) -> C:
    whole, _, layer = name.rpartition(".")
    count = config.model.num_layers
    if not (layer.isdecimal() and int(layer) < count):
        raise UsageError(f"{name}: no such layer; allowed: {whole}.0 to {whole}.{count - 1}")
    rates = flatten(config)[whole]
    rates = list(rates) if isinstance(rates, tuple) else [rates] * count
    rates[int(layer)] = value
    return replace(config, whole, rates)
