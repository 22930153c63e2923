"""What a command runs: the rooms' configs in one, with the defaults of the main job.

All defaults of the main job that are not a room's own live in this file.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from jaxhpo.config.fields import flatten
from jaxhpo.config.names import check_space, fixed_dimensions
from jaxhpo.data.config import DataConfig
from jaxhpo.errors import UsageError
from jaxhpo.nn.config import DropoutConfig, LossConfig, ModelConfig
from jaxhpo.optimizers.config import MAY_BE_INFINITE as THRESHOLDS
from jaxhpo.optimizers.config import OptimizerConfig
from jaxhpo.population.config import ExecutionConfig
from jaxhpo.record.config import CheckpointConfig, TrackerConfig
from jaxhpo.schedules.config import ScheduleConfig
from jaxhpo.search.config import PbtConfig

STEPS = 600
SPACE = {
    "schedule.peak_lr": "log(3e-4, 3e-2)",
    "optimizer.weight_decay": "log(1e-3, 1)",
    "optimizer.beta2": "uniform(0.9, 0.999)",
}
"""Searched by default."""

MAY_BE_INFINITE = frozenset(f"optimizer.{name}" for name in THRESHOLDS)


@dataclass(frozen=True)
class Run:
    """What every run has; a command adds its own part."""

    command: ClassVar[str] = ""

    steps: int = STEPS
    """optimizer steps of each member"""
    seed: int = 0
    """of everything random; equal seeds and settings give equal runs"""
    out: str | None = None
    """run directory (default: a new one, such as runs/pbt-0001)"""
    resume: Literal["never", "auto"] = "never"
    """an existing run directory is refused (never) or carried on (auto)"""
    model: ModelConfig = field(default_factory=ModelConfig)
    dropout: DropoutConfig = field(default_factory=DropoutConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    data: DataConfig = field(default_factory=DataConfig)
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    space: Mapping[str, str] = field(default_factory=dict, hash=False)
    """dimensions searched, all of them, as NAME=DISTRIBUTION; distributions: log(1e-4, 1e-1),
    uniform(0, 0.3), int(1, 4), choice(a, b)"""

    def __post_init__(self) -> None:
        _check_range("steps", self.steps, 1, 2**31 - 1)
        _check_range("seed", self.seed, 0, 2**32 - 1)
        for name, value in flatten(self).items():
            _check_finite(name, value)
        for name in ("attention", "residual", "mlp"):
            _check_layers(f"dropout.{name}", getattr(self.dropout, name), self.model.num_layers)
        check_space(self)

    @property
    def members(self) -> int:
        """Members trained at once."""
        return 1

    @property
    def tokens_per_step(self) -> int:
        """Tokens that a member trains on in one step."""
        return self.data.batch_size * self.model.context


@dataclass(frozen=True)
class PbtRun(Run):
    """Population-based training: train a population, tune its hyperparameters meanwhile."""

    command: ClassVar[str] = "pbt"

    pbt: PbtConfig = field(default_factory=PbtConfig)
    space: Mapping[str, str] = field(default_factory=lambda: dict(SPACE), hash=False)
    """dimensions searched, all of them, as NAME=DISTRIBUTION; distributions: log(1e-4, 1e-1),
    uniform(0, 0.3), int(1, 4), choice(a, b)"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if fixed := fixed_dimensions(self):
            raise UsageError(
                f"pbt can't search {', '.join(fixed)}: changing them changes the compiled program; "
                "allowed: dimensions of dropout, loss, schedule and optimizer that are numbers"
            )

    @property
    def members(self) -> int:
        """Members trained at once, those held fixed beside the population too."""
        return self.pbt.members * (2 if self.pbt.beside else 1)


@dataclass(frozen=True)
class TrainRun(Run):
    """Train one model: a population of one."""

    command: ClassVar[str] = "train"

    schedule_from: str | None = None
    """run directory whose best trial's hyperparameter schedule is replayed from scratch"""


KINDS: dict[str, type[Run]] = {"pbt": PbtRun, "train": TrainRun}
"""The config of each command that runs something."""


def _check_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        shown = value if value.bit_length() < 256 else "(a number too large)"
        raise UsageError(f"{name}={shown}; allowed: {low} to {high}")


def _check_finite(name: str, value: object) -> None:
    for each in value if isinstance(value, tuple) else (value,):
        if isinstance(each, float) and math.isnan(each):
            raise UsageError(f"{name}=nan; allowed: a number")
        if isinstance(each, float) and math.isinf(each) and name not in MAY_BE_INFINITE:
            raise UsageError(f"{name}={each}; allowed: a finite number")


def _check_layers(name: str, rates: object, num_layers: int) -> None:
    if isinstance(rates, tuple) and len(rates) != num_layers:
        raise UsageError(
            f"{name} has {len(rates)} rates; allowed: one for all layers, or one for each of "
            f"model.num_layers={num_layers}"
        )
