"""The traced hyperparameters of a language model, and how points become rows of them."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import numpy as np

from jaxhpo import adapters, optimizers, schedules
from jaxhpo.adapters.config import AdapterConfig
from jaxhpo.nn.config import DropoutConfig, LossConfig
from jaxhpo.nn.hyperparams import Dropout, HeadTerms, LossTerms
from jaxhpo.optimizers.config import OptimizerConfig
from jaxhpo.schedules.config import ScheduleConfig


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Hyperparams:
    """Everything continuous that a search may change, one slice a room; [P] leads every leaf.

    A feature that neither config nor space uses is None: static, compiled out.
    """

    schedule: schedules.Schedule | schedules.Cooled
    optimizer: optimizers.OptimizerHyperparams
    dropout: Dropout
    loss: LossTerms
    adapter: adapters.AdapterHyperparams | None = None
    head: HeadTerms | None = None


class Defaults(Protocol):
    """The part of a run's config that traced values come from; some have an `adapter` too."""

    schedule: ScheduleConfig
    optimizer: OptimizerConfig
    dropout: DropoutConfig
    loss: LossConfig
    steps: int
    tokens_per_step: int
    model: Any

    def steps_of(self, point: Mapping[str, Any]) -> int: ...


def lower(
    config: Defaults, searched: Collection[str], points: Sequence[Mapping[str, Any]]
) -> Hyperparams:
    """Rows f32[P, ...] (numpy) of the config's values, each overridden by its point.

    `searched` are the dotted names of the space: they decide, not the points, which features exist.
    Raises UsageError where a value is outside what its room allows.
    """
    size = schedules.table_size(_in_steps(config, config.schedule), config.steps, searched)
    rows = [_row(config, frozenset(searched), point, size) for point in points]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *rows)


def _row(
    config: Defaults, searched: frozenset[str], point: Mapping[str, Any], size: int
) -> Hyperparams:
    values = {name: _override(config, name, point) for name in ("schedule", "optimizer", "loss")}
    uses = lambda name: name in searched
    steps = config.steps_of(point)
    return Hyperparams(
        schedule=schedules.lower_to(_in_steps(config, values["schedule"]), steps, size),
        optimizer=optimizers.lower(
            values["optimizer"],
            optimizers.present(
                config.optimizer,
                [n.removeprefix("optimizer.") for n in searched if n.startswith("optimizer.")],
            ),
            peak_lr=values["schedule"].peak_lr,
            steps=steps,
        ),
        dropout=_dropout(config, searched, point),
        loss=LossTerms(
            **{
                name: np.float32(getattr(values["loss"], name))
                if uses(f"loss.{name}") or getattr(config.loss, name)
                else None
                for name in ("label_smoothing", "z_loss")
            }
        ),
        adapter=_adapter(config, searched, point),
        head=_head(config, searched, point),
    )


def _adapter(
    config: Defaults, searched: frozenset[str], point: Mapping[str, Any]
) -> adapters.AdapterHyperparams | None:
    """The adapter's numbers, where the config has one; arrays are as wide as the config says."""
    own: AdapterConfig | None = getattr(config, "adapter", None)
    if own is None or own.kind == "none":
        return None
    names = [name.removeprefix("adapter.") for name in searched if name.startswith("adapter.")]
    which = adapters.present(own, names)
    changed = _override(config, "adapter", point)
    return adapters.lower(changed, which, steps=config.steps_of(point), width=own.width)


def _head(config: Defaults, searched: frozenset[str], point: Mapping[str, Any]) -> HeadTerms | None:
    """The numbers of a head, where the config has one."""
    if getattr(config, "head", None) is None:
        return None
    rate = _override(config, "head", point).dropout
    return HeadTerms(np.float32(rate) if "head.dropout" in searched or rate else None)


def _in_steps(config: Defaults, schedule: ScheduleConfig) -> ScheduleConfig:
    return schedules.in_steps(schedule, config.tokens_per_step)


def _override(config: Defaults, section: str, point: Mapping[str, Any]) -> Any:
    prefix = f"{section}."
    changes = {k.removeprefix(prefix): v for k, v in point.items() if k.startswith(prefix)}
    return dataclasses.replace(getattr(config, section), **changes)


def _dropout(config: Defaults, searched: frozenset[str], point: Mapping[str, Any]) -> Dropout:
    """Rates f32[], or f32[L] where the config gives a tuple or the space names a layer."""
    rates = {}
    for field in dataclasses.fields(Dropout):
        name = f"dropout.{field.name}"
        value = point.get(name, getattr(config.dropout, field.name))
        layers = [key for key in searched if key.startswith(f"{name}.")]
        if layers or isinstance(value, tuple):
            value = np.broadcast_to(np.float32(value), (config.model.num_layers,)).copy()
            for key in layers:
                value[int(key.rsplit(".", 1)[1])] = point.get(
                    key, value[int(key.rsplit(".", 1)[1])]
                )
        used = layers or name in searched or np.any(np.asarray(getattr(config.dropout, field.name)))
        rates[field.name] = np.float32(value) if used else None
    return Dropout(**rates)
