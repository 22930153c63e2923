"""What a tracker is told, and when."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

Value = float | int | str


@dataclass(frozen=True)
class ForkedFrom:
    """The run that a run was forked from; `trials` is trial -> the parent's trial and its step."""

    name: str
    directory: Path
    id: str
    preset: str
    trials: Mapping[int, tuple[int, int]]
    fresh: bool = True
    """whether the run begins now; a continued one is known to the mirrors already"""

    @property
    def step(self) -> int:
        """The latest step that a trial was forked at."""
        return max(step for _, step in self.trials.values())


@dataclass(frozen=True)
class RunInfo:
    """The run as it starts, or continues."""

    name: str
    """of the run directory; ids of mirrored runs are made from it"""
    directory: Path
    total_steps: int
    """optimizer steps that each trial ends at"""
    members: int
    config: Mapping[str, Any] = field(default_factory=dict)
    """resolved, nested as in the config file"""
    step: int = 0
    """where a continued run goes on"""
    parent: ForkedFrom | None = None
    trials: int | None = None
    """trials that a search starts at most; None where all train side by side to the end"""


@dataclass(frozen=True)
class TrialResult:
    """Where one trial stands after a segment; losses are held-out, in nats per token."""

    trial: int
    step: int
    loss: float
    score: float
    group: str = "pbt"


@dataclass(frozen=True)
class Exploit:
    """A trial that took over another's weights; `changes` is hyperparameter -> (old, new)."""

    trial: int
    parent: int
    changes: Mapping[str, tuple[Value, Value]] = field(default_factory=dict)


@dataclass(frozen=True)
class Snapshot:
    """How the run is going after a segment."""

    step: int
    """largest step that a trial has reached"""
    total_steps: int
    results: tuple[TrialResult, ...]
    exploits: tuple[Exploit, ...] = ()
    """copies between trials that this segment began with"""
    points: Mapping[int, Mapping[str, Value]] = field(default_factory=dict)
    """trial -> the hyperparameters it trained with"""
    curves: Mapping[int, Mapping[str, Sequence[float]]] = field(default_factory=dict)
    """trial -> step, loss, lr, grad_norm, ... inside the segment"""
    tokens_per_second: float = math.nan
    step_seconds: float = math.nan
    """of one step of all members, evaluation included"""
    mfu: float = math.nan
    """model FLOP/s over the peak of the devices; NaN where the peak is not known"""
    goodput: float = math.nan
    """seconds in segments that count over all seconds since the run first began"""
    memory_bytes: float = math.nan
    """most that a device held; of the process where the backend does not tell"""
    seconds_left: float = math.nan
    first_row: int = 0
    """rows of curves that came before, at most: the same number in a run that was resumed, so that
    a mirror can number its own by it"""
    trials: int = 0
    """started so far"""
    share: float = math.nan
    """of the run's member-steps that are made"""

    @property
    def searched(self) -> tuple[TrialResult, ...]:
        """The results of the search itself: not of those held fixed beside it, unless alone."""
        return tuple(row for row in self.results if row.group != "fixed") or self.results

    @property
    def best(self) -> TrialResult | None:
        """The searched trial with the lowest finite loss; None if there is none."""
        finite = [row for row in self.searched if math.isfinite(row.loss)]
        return min(finite, key=lambda row: (row.loss, row.trial), default=None)

    @property
    def median(self) -> float:
        """Median loss of the searched trials; a diverged one counts as infinite."""
        losses = [row.loss if math.isfinite(row.loss) else math.inf for row in self.searched]
        return statistics.median(losses) if losses else math.nan


@dataclass(frozen=True)
class Summary:
    """How the run ended."""

    status: str = "finished"
    """finished, stopped (to be resumed), diverged or failed"""
    best: TrialResult | None = None
    seconds: float = math.nan
    details: Mapping[str, Any] = field(default_factory=dict)
    """more numbers by name, for the mirrors"""


class Tracker(Protocol):
    """Is told how a run goes; decides nothing. What it raises never stops a run.

    >>> tracker.start(info)                     # doctest: +SKIP
    >>> for snapshot in segments:               # doctest: +SKIP
    ...     tracker.segment(snapshot)
    >>> tracker.finish(summary)                 # doctest: +SKIP

    `note` brings a line for people at any time. `finish` comes once, on every way out.
    """

    def start(self, info: RunInfo) -> None: ...

    def segment(self, snapshot: Snapshot) -> None: ...

    def note(self, text: str) -> None: ...

    def finish(self, summary: Summary) -> None: ...
