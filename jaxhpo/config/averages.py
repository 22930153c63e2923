"""Which checkpoints are averaged, and how they are weighed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from jaxhpo.config.forks import check_places
from jaxhpo.errors import UsageError
from jaxhpo.population.config import ExecutionConfig


@dataclass(frozen=True)
class AverageConfig:
    """Average the parameters of checkpoints and evaluate the average on the held-out part.

    `jaxhpo fork RUN --average ...` trains on from such an average.
    """

    short: ClassVar[Mapping[str, str]] = {}

    at: tuple[str, ...] = ()
    """checkpoints: steps, stable-end, best, last, or tokens such as 1.5Mt"""
    trial: int | None = None
    """member of the run (default: the best)"""
    ema: float | None = None
    """weigh each checkpoint this much less than the next (default: all alike)"""
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)

    def __post_init__(self) -> None:
        check_places("at", self.at)
        if self.ema is not None and not 0 < self.ema < 1:
            raise UsageError(f"ema={self.ema}; allowed: above 0 and below 1")
