"""What a command runs: the rooms' configs in one, with the defaults of the main job.

All defaults of the main job that are not a room's own live in this file.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from jaxhpo.config.fields import flatten
from jaxhpo.config.forks import Part, PresetName, check_fork
from jaxhpo.config.names import check_comparable, check_space, fixed_dimensions
from jaxhpo.data.config import DataConfig
from jaxhpo.errors import UsageError
from jaxhpo.nn.config import DropoutConfig, LossConfig, ModelConfig
from jaxhpo.optimizers.config import MAY_BE_INFINITE as THRESHOLDS
from jaxhpo.optimizers.config import OptimizerConfig
from jaxhpo.population.config import DistributedConfig, ExecutionConfig
from jaxhpo.record.config import CheckpointConfig, TrackerConfig
from jaxhpo.schedules.config import ScheduleConfig
from jaxhpo.search.config import POPULATIONS, PbtConfig, SearchConfig

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
    short: ClassVar[Mapping[str, str]] = {"mesh": "execution.mesh"}
    """names that the command line takes for longer ones"""

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
    distributed: DistributedConfig = field(default_factory=DistributedConfig)
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
        if self.data.languages is not None and self.model.position == "learned":
            raise UsageError(
                f"model.position=learned with data.languages={self.data.languages}: a row holds "
                "several pairs of sentences; allowed: rotary, none"
            )
        check_space(self)

    @property
    def members(self) -> int:
        """Members trained at once."""
        return 1

    def steps_of(self, point: Mapping[str, Any]) -> int:
        """The steps that a trial with a point makes, if it lasts."""
        del point
        return self.steps

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
class SearchRun(Run):
    """Search hyperparameters: any scheduler, over traced and static dimensions alike.

    --scheduler and --trials are short for the options search.scheduler and search.trials.
    """

    command: ClassVar[str] = "search"
    short: ClassVar[Mapping[str, str]] = {
        **Run.short,
        "scheduler": "search.scheduler",
        "trials": "search.trials",
    }

    search: SearchConfig = field(default_factory=SearchConfig)
    pbt: PbtConfig = field(default_factory=lambda: PbtConfig(beside=False))
    """of the schedulers pbt and pb2"""
    space: Mapping[str, str] = field(default_factory=lambda: dict(SPACE), hash=False)
    """dimensions searched, all of them, as NAME=DISTRIBUTION; distributions: log(1e-4, 1e-1),
    uniform(0, 0.3), int(1, 4), choice(a, b)"""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_comparable(self)

    @property
    def members(self) -> int:
        """Trials that may train at once."""
        return trained_at_once(self.search, self.pbt)


@dataclass(frozen=True)
class TrainRun(Run):
    """Train one model: a population of one."""

    command: ClassVar[str] = "train"

    schedule_from: str | None = None
    """run directory whose best trial's hyperparameter schedule is replayed from scratch"""


@dataclass(frozen=True)
class ForkRun(Run):
    """Fork a run: train on from one of its checkpoints, what is kept and what is reset stated.

    Every other option is the parent's unless it is given here. The length of a decay is decay; else
    steps is the step to train to, the parent's included.
    """

    command: ClassVar[str] = "fork"

    run: str | None = None
    """run directory that is forked"""
    at: tuple[str, ...] = ()
    """where: a step, stable-end, best, last, or tokens such as 1.5Mt (default: decay and extend
    stable-end, others last); several with decay are a ladder"""
    trial: int | None = None
    """member of the run (default: the best at that checkpoint)"""
    preset: PresetName = "decay"
    """continue: all kept; decay: enter it now; extend: back in the stable stage, train on; recycle
    (WSD-S): on from decayed weights at the peak; finetune: weights only"""
    decay: tuple[int, ...] = ()
    """steps of the decay, several are a fan (default: a fifth of all steps, or the parent's)"""
    shape: tuple[str, ...] = ()
    """shape of the decay as in schedule.decay_shape, several are a fan (default: the parent's)"""
    keep: tuple[Part, ...] = ()
    """parts kept that the preset resets"""
    reset: tuple[Part, ...] = ()
    """parts reset that the preset keeps; parameters are always kept"""
    average: tuple[str, ...] = ()
    """start from the average of the parameters of several checkpoints, as in at; moments and step
    are the newest one's"""
    ema: float | None = None
    """of an average: weigh each checkpoint this much less than the next (default: all alike)"""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fork(self)

    @property
    def members(self) -> int:
        """Children trained at once: one for each point, length and shape."""
        count = lambda values: max(1, len(values))
        return count(self.at) * count(self.decay) * count(self.shape)


@dataclass(frozen=True)
class FunctionRun:
    """A search over the hyperparameters of a user's own function; called from Python only."""

    command: ClassVar[str] = "function"

    steps: int = STEPS
    """optimizer steps of each trial that lasts"""
    seed: int = 0
    """of everything random; equal seeds and settings give equal runs"""
    out: str | None = None
    """run directory (default: a new one, such as runs/function-0001)"""
    resume: Literal["never", "auto"] = "never"
    """an existing run directory is refused (never) or carried on (auto)"""
    search: SearchConfig = field(default_factory=SearchConfig)
    pbt: PbtConfig = field(default_factory=lambda: PbtConfig(beside=False))
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)
    distributed: DistributedConfig = field(default_factory=DistributedConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    space: Mapping[str, str] = field(default_factory=dict, hash=False)
    """dimensions searched, as the function names them"""

    def __post_init__(self) -> None:
        _check_range("steps", self.steps, 1, 2**31 - 1)
        _check_range("seed", self.seed, 0, 2**32 - 1)

    @property
    def members(self) -> int:
        """Trials that may train at once."""
        return trained_at_once(self.search, self.pbt)


def trained_at_once(search: SearchConfig, pbt: PbtConfig) -> int:
    """Trials of a search that may train at once."""
    if search.scheduler in POPULATIONS:
        return pbt.members
    return search.places or search.trials


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
