"""What a learning-rate schedule is made of; every value may differ between members."""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from jaxhpo.errors import UsageError

STATIC = frozenset({"unit", "milestones", "phases"})
"""Fields that are no number of one member: texts and lists, and what lengths are counted in."""

LENGTHS = (
    "warmup_steps",
    "decay_start",
    "decay_steps",
    "half_life",
    "timescale",
    "cycle_steps",
    "rewarmup_steps",
    "milestones",
)
"""Fields counted in `unit`; those of `phases` are too."""


@dataclass(frozen=True)
class ScheduleConfig:
    """Learning rate over steps: a linear warm-up, then what `kind` says. None: from `steps`."""

    kind: Literal[
        "constant",
        "linear",
        "polynomial",
        "inverse_sqrt",
        "noam",
        "cosine",
        "cyclic_cosine",
        "wsd",
        "cyclic_wsd",
        "multi_step",
        "sequence",
    ] = "wsd"
    """after the warm-up: constant; a linear, polynomial or cosine decay; inverse_sqrt (noam: with
    timescale = warmup_steps); wsd (stable, then decay); cyclic_cosine (warm restarts) and
    cyclic_wsd (WSD-S) in cycles; multi_step (drops at milestones); a sequence of phases"""
    unit: Literal["steps", "tokens"] = "steps"
    """what all lengths of the schedule are counted in, those called steps too"""
    peak_lr: float = 3e-3
    """highest learning rate"""
    warmup_steps: float = 50.0
    """steps of linear warm-up from zero; the first update then has rate zero, as in optax"""
    warmup_from: float = 0.0
    """where the warm-up begins, as a share of the peak"""
    decay_start: float | None = None
    """step at which the decay of wsd begins (default: steps - decay_steps)"""
    decay_steps: float | None = None
    """length of the decay (default: wsd a fifth of steps, others all after the warm-up)"""
    decay_shape: Literal[
        "linear", "polynomial", "cosine", "1-sqrt", "exponential", "geometric", "inverse"
    ] = "linear"
    """how wsd and cyclic_wsd fall from the peak to the floor"""
    floor: float = 0.0
    """learning rate after the decay, as a share of the peak; of exponential and inverse_sqrt a
    lower bound"""
    power: float = 1.0
    """exponent of a polynomial or cosine decay"""
    half_life: float | None = None
    """steps in which an exponential decay halves the rate"""
    timescale: float | None = None
    """of inverse_sqrt: the rate halves after three of it (default: warmup_steps, or 10000)"""
    cycle_steps: float | tuple[float, ...] | None = None
    """length of the first cycle, the warm-up included, or of each (default: four fill the run)"""
    cycle_growth: float = 1.0
    """length of a cycle as a multiple of the one before"""
    cycle_peak: float = 1.0
    """peak of a cycle as a share of the one before"""
    cycle_decay: float = 0.1
    """share of a cycle of cyclic_wsd that decays"""
    cycle_basis: Literal["cycle", "cumulative"] = "cycle"
    """what cycle_decay is a share of: the cycle, or all steps up to its end"""
    rewarmup_steps: float = 0.0
    """linear warm-up of every later cycle (default: the rate jumps back to the peak)"""
    milestones: tuple[float, ...] | None = None
    """steps at which multi_step drops the rate (default: at 80% and 90% of the run)"""
    milestone_factor: float = 0.1
    """what multi_step multiplies the rate by at each milestone"""
    phases: tuple[str, ...] | None = None
    """of a sequence, after the warm-up: SHAPE LENGTH [from SHARE] [to SHARE] with shares of the
    peak, such as 'hold 300' 'cosine 200 to 0.1'; shapes: hold and all that decay_shape may be"""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.peak_lr) and self.peak_lr >= 0):
            raise UsageError(f"schedule.peak_lr={self.peak_lr}; allowed: a finite rate, 0 or more")
        for name in ("floor", "warmup_from"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(
                    f"schedule.{name}={getattr(self, name)} is a share of the peak; allowed: 0 to 1"
                )
        for name in LENGTHS:
            for value in each(getattr(self, name)):
                if not (math.isfinite(value) and value >= 0):
                    raise UsageError(
                        f"schedule.{name}={value}; allowed: a number of {self.unit}, 0 or more"
                    )
        for text in self.phases or ():
            stretch(text)

    def decay(self, steps: float) -> tuple[float, float]:
        """Start and length of the decay in a run of `steps`. UsageError where they do not fit."""
        if self.warmup_steps > steps:
            tokens = " (are they tokens? then schedule.unit=tokens)" if steps < 1e6 else ""
            raise UsageError(
                f"schedule.warmup_steps={self.warmup_steps:g} is longer than the run: "
                f"steps={steps:g}{tokens if self.warmup_steps > 1e6 else ''}"
            )
        if self.kind in ("linear", "polynomial", "cosine"):
            start = self.warmup_steps
            length = steps - start if self.decay_steps is None else self.decay_steps
            return start, length
        length = self.decay_steps
        if length is None:
            length = steps // 5 if self.decay_start is None else steps - self.decay_start
        start = steps - length if self.decay_start is None else self.decay_start
        if self.kind == "wsd" and start < self.warmup_steps:
            raise UsageError(
                f"schedule.decay_start={start:g} comes before the end of "
                f"schedule.warmup_steps={self.warmup_steps:g}; lower decay_steps or warmup_steps"
            )
        if self.kind == "wsd" and length < 0:
            raise UsageError(f"schedule.decay_start={start:g} is after the run: steps={steps:g}")
        return start, length

    def scaled(self, multiple: float, divisor: float = 1.0) -> "ScheduleConfig":
        """The same curve with every length times `multiple / divisor`, counted in steps."""
        times = lambda length: length * multiple / divisor
        lengths: dict[str, Any] = {name: getattr(self, name) for name in LENGTHS}
        for name, value in lengths.items():
            if value is not None:
                many = isinstance(value, tuple)
                lengths[name] = tuple(map(times, value)) if many else times(value)
        if self.phases is not None:
            lengths["phases"] = tuple(stretch(text).scaled(times) for text in self.phases)
        return replace(self, unit="steps", **lengths)


TRACED = frozenset(ScheduleConfig.__dataclass_fields__) - STATIC
"""Fields that may change without a new program: kinds and shapes too, as all lower to one form."""


class Stretch(NamedTuple):
    """One phase of a sequence as a person writes it; shares are of the peak."""

    shape: str
    length: float
    begin: float | None
    end: float | None
    bend: float

    def scaled(self, times: Any) -> str:
        """Its text with other lengths."""
        name = BENDS.get(self.shape)
        bend = times(self.bend) if name in _LENGTH_BENDS else self.bend
        words = [self.shape, f"{times(self.length):.15g}"]
        words += [] if self.begin is None else ["from", f"{self.begin:.15g}"]
        words += [] if self.end is None else ["to", f"{self.end:.15g}"]
        return " ".join(words + ([] if name is None else [name, f"{bend:.15g}"]))


BENDS = {
    "polynomial": "power",
    "cosine": "power",
    "exponential": "half_life",
    "inverse_sqrt": "timescale",
}
"""What the one further number of a phase means, by shape."""
_LENGTH_BENDS = ("half_life", "timescale")
_OPEN = ("hold", "exponential", "inverse_sqrt")
_STRETCHES = ("hold", "linear", "1-sqrt", "geometric", "inverse", *BENDS)
_ALLOWED = (
    "allowed: SHAPE LENGTH [from SHARE] [to SHARE] [power, half_life or timescale NUMBER], "
    "such as 'cosine 200 to 0.1'"
)


def stretch(text: str) -> Stretch:
    """A phase from its text. Raises UsageError that names the text and what is allowed."""
    shape, *rest = text.split() or [""]
    if shape not in _STRETCHES:
        raise UsageError(
            f"schedule.phases {text!r} has no known shape; allowed: {', '.join(_STRETCHES)}"
        )
    words = dict(zip(["", *rest[1::2]], rest[::2], strict=False))
    known = {"", "from", "to", BENDS.get(shape, "")}
    try:
        numbers = {word: float(number) for word, number in words.items()}
    except ValueError:
        numbers = {}
    sound = all(math.isfinite(number) and number >= 0 for number in numbers.values())
    if len(rest) != 2 * len(numbers) - 1 or not set(numbers) <= known or not sound:
        raise UsageError(f"schedule.phases {text!r}; {_ALLOWED}")
    if shape == "hold" and "to" in numbers:
        raise UsageError(f"schedule.phases {text!r}: a hold has one rate; write it with from")
    if shape not in _OPEN and "to" not in numbers:
        raise UsageError(f"schedule.phases {text!r} does not say where it ends; {_ALLOWED}")
    bend = BENDS.get(shape)
    if bend in _LENGTH_BENDS and not numbers.get(bend):
        raise UsageError(f"schedule.phases {text!r} needs {bend} and a number above 0")
    return Stretch(
        shape,
        numbers[""],
        numbers.get("from"),
        numbers.get("to"),
        numbers.get(bend, 1.0) if bend else 1.0,
    )


def each(value: Any) -> tuple[float, ...]:
    """The numbers of a field that may hold none, one or several."""
    return () if value is None else value if isinstance(value, tuple) else (value,)
