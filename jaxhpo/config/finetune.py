"""What fine-tuning is made of: a base, a task on examples, adapters, and perhaps a search."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from jaxhpo.adapters.config import AdapterConfig
from jaxhpo.config.run import STEPS, SearchRun
from jaxhpo.data.config import DataConfig, ExamplesConfig
from jaxhpo.errors import UsageError
from jaxhpo.nn.config import HeadConfig, ModelConfig
from jaxhpo.schedules.config import ScheduleConfig
from jaxhpo.search.config import COPYING, SearchConfig

TaskName = Literal["classification", "regression", "pairs", "instructions", "language-modelling"]
MetricName = Literal[
    "loss", "accuracy", "f1", "f1-macro", "matthews", "pearson", "spearman", "perplexity"
]

METRICS_OF: dict[str, tuple[str, ...]] = {
    "classification": ("accuracy", "f1", "f1-macro", "matthews"),
    "pairs": ("accuracy", "f1", "f1-macro", "matthews"),
    "regression": ("pearson", "spearman"),
    "instructions": ("perplexity",),
    "language-modelling": ("perplexity",),
}
"""Task -> what is measured of it beside the loss."""

OWN_LENGTH = ("epochs", "data.batch_size")
"""Dimensions that give a trial a length of its own where the run is counted in epochs."""


@dataclass(frozen=True)
class FinetuneRun(SearchRun):
    """Fine-tune a pretrained base: adapters or all weights, one or a population, searched or not.

    --data, --search and --trials are short for data.source, search.scheduler and search.trials.
    Without a space, copies that differ in their seed are trained (--seeds).
    """

    command: ClassVar[str] = "finetune"
    short: ClassVar[Mapping[str, str]] = {
        **SearchRun.short,
        "data": "data.source",
        "search": "search.scheduler",
    }

    base: str | None = None
    """Hugging Face folder, or run directory whose best model is the base"""
    task: TaskName = "classification"
    """what is learnt: the class or a number of a text, the class of a pair of texts, the answer to
    a prompt, or the next token"""
    metric: MetricName = "loss"
    """what ranks on the held-out examples; f1 is of the last of two classes"""
    epochs: float | None = None
    """passes over the training part, in place of steps; searchable"""
    epoch_examples: int | None = None
    """examples in one epoch (default: all of the training part)"""
    seeds: int = 1
    """copies that are trained where there is no space"""
    head: HeadConfig = field(default_factory=HeadConfig)
    adapter: AdapterConfig = field(default_factory=lambda: AdapterConfig(kind="lora"))
    examples: ExamplesConfig = field(default_factory=ExamplesConfig)
    model: ModelConfig = field(default_factory=lambda: ModelConfig(context=128))
    """the base's; but for context, dtypes and remat it is not to be given"""
    data: DataConfig = field(
        default_factory=lambda: DataConfig(tokenizer="base", batch_size=16, eval_batches=64)
    )
    """of data.tokenizer, base means the one that the base was trained with"""
    schedule: ScheduleConfig = field(
        default_factory=lambda: ScheduleConfig(kind="linear", peak_lr=1e-3, warmup_steps=0.0)
    )
    search: SearchConfig = field(default_factory=lambda: SearchConfig(scheduler="tpe"))
    space: Mapping[str, str] = field(default_factory=dict, hash=False)
    """dimensions searched, as NAME=DISTRIBUTION, such as 'epochs=int(1, 5)'; without: seeds"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.epochs is not None and not (math.isfinite(self.epochs) and self.epochs > 0):
            raise UsageError(f"epochs={self.epochs}; allowed: above 0")
        for name in ("seeds", "epoch_examples"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise UsageError(f"{name}={value}; allowed: 1 or more")
        allowed = ("loss", *METRICS_OF[self.task])
        if self.metric not in allowed:
            raise UsageError(
                f"metric={self.metric} is not measured of task={self.task}; allowed: "
                f"{', '.join(allowed)}"
            )
        if self.space and self.seeds > 1:
            raise UsageError(
                f"seeds={self.seeds} with a space; allowed: one of the two (a search has "
                "search.trials)"
            )
        self._check_dimensions()

    def _check_dimensions(self) -> None:
        for name in self.space:
            if name.startswith("model."):
                raise UsageError(f"{name} in space: the shapes are the base's; leave it out")
        if self.own_lengths and self.search.scheduler in COPYING:
            raise UsageError(
                f"{self.own_lengths[0]} in space gives trials lengths of their own, which "
                f"{self.search.scheduler} can't compare; use another search, or steps for epochs"
            )

    @property
    def own_lengths(self) -> tuple[str, ...]:
        """The dimensions searched that decide how many steps a trial has."""
        if self.epochs is None and "epochs" not in self.space:
            return ()
        return tuple(name for name in OWN_LENGTH if name in self.space)

    def steps_of(self, point: Mapping[str, Any]) -> int:
        """The steps that a trial with a point makes: whole epochs, rounded up to a step."""
        epochs = point.get("epochs", self.epochs)
        if epochs is None or self.epoch_examples is None:
            return self.steps
        batch = point.get("data.batch_size", self.data.batch_size)
        return max(1, math.ceil(float(epochs) * self.epoch_examples / int(batch) - 1e-9))

    @property
    def outputs(self) -> int:
        """Outputs of the head, once the classes are known; none where there is no head."""
        if self.task == "regression":
            return 1
        return len(self.examples.classes) if self.task in ("classification", "pairs") else 0

    @property
    def members(self) -> int:
        """Trials that may train at once."""
        return super().members if self.space else self.seeds


def check_steps(config: FinetuneRun, steps: int) -> None:
    """Raises UsageError where both steps and epochs are given, and differ."""
    if config.steps not in (STEPS, steps):
        raise UsageError(
            f"steps={config.steps} with epochs={config.epochs}, which makes {steps} steps of "
            f"{config.epoch_examples} examples; give one of the two"
        )
