"""Forks: the parts of a run's state, and the presets that keep or reset them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from jaxhpo.config.fields import hints, suggest
from jaxhpo.errors import UsageError
from jaxhpo.schedules.config import ScheduleConfig

if TYPE_CHECKING:
    from jaxhpo.config.run import ForkRun

Part = Literal["moments", "step", "schedule", "data", "key", "hyperparameters"]
"""What a fork keeps or resets besides the parameters, which it always keeps: the optimizer's
moments, the step counter, the schedule's phase, the data position, the random key, and the
hyperparameters of the member's own."""

PARTS: tuple[str, ...] = ("params", *get_args(Part))

PresetName = Literal["continue", "decay", "extend", "recycle", "finetune"]

STABLE_END, LAST, BEST = "stable-end", "last", "best"
WORDS = (STABLE_END, BEST, LAST)
"""Places to fork at that have a name."""

_UNITS = {"": 1, "k": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
_TOKENS = re.compile(r"(\d+(?:\.\d+)?)(k|M|B|T|)t")


@dataclass(frozen=True)
class Preset:
    """What a preset resets, what becomes of the schedule, and where it forks by default."""

    schedule: str
    at: str
    reset: tuple[str, ...] = ()
    bends: bool = True
    """whether it gives the schedule another course, which keeping or resetting would contradict"""


PRESETS: dict[str, Preset] = {
    "continue": Preset("kept", LAST, bends=False),
    "decay": Preset("enters the decay", STABLE_END),
    "extend": Preset("back in the stable stage", STABLE_END),
    "recycle": Preset("back at the peak", LAST),
    "finetune": Preset("restarted", LAST, get_args(Part), bends=False),
}
"""Sources: Hu et al. 2024 (decays from one stable trunk); Wen et al. 2024 (recycle: WSD-S)."""


def kept_and_reset(config: "ForkRun") -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The parts that a fork keeps and those that it resets, in the order of PARTS.

    A schedule that takes another course is neither.
    """
    preset = PRESETS[config.preset]
    reset = {*preset.reset, *config.reset} - {*config.keep}
    named = [part for part in PARTS if part != "schedule" or not preset.bends]
    return (
        tuple(part for part in named if part not in reset),
        tuple(part for part in named if part in reset),
    )


def tokens_of(text: str) -> float | None:
    """Tokens from a text such as `1.5Mt`, None where it is none.

    >>> tokens_of("1.5Mt"), tokens_of("409600t"), tokens_of("400")
    (1500000.0, 409600.0, None)
    """
    found = _TOKENS.fullmatch(text)
    return float(found[1]) * _UNITS[found[2]] if found else None


def check_fork(config: "ForkRun") -> None:
    """Raises UsageError for what no run could be forked with."""
    for name in ("at", "average"):
        check_places(name, getattr(config, name))
    for length in config.decay:
        if not 1 <= length < 2**31:
            raise UsageError(f"decay={length}; allowed: a number of steps, 1 or more")
    shapes = get_args(hints(ScheduleConfig)["decay_shape"])
    for shape in config.shape:
        if shape not in shapes:
            raise UsageError(f"shape={shape}; allowed: {', '.join(shapes)}")
    _check_several(config)
    if config.at and config.average:
        raise UsageError("at and average both say where to fork; give one of them")
    if twice := sorted({*config.keep} & {*config.reset}):
        raise UsageError(f"keep and reset both name {', '.join(twice)}; give each part to one")
    if PRESETS[config.preset].bends and "schedule" in (*config.keep, *config.reset):
        raise UsageError(
            f"preset={config.preset} changes the schedule, which can't be kept or reset too; "
            "allowed: preset continue or finetune"
        )
    if config.trial is not None and config.trial < 0:
        raise UsageError(f"trial={config.trial}; allowed: 0 or more")
    if config.ema is not None and not 0 < config.ema < 1:
        raise UsageError(f"ema={config.ema}; allowed: above 0 and below 1")


def _check_several(config: "ForkRun") -> None:
    for name in ("at", "decay", "shape", "average"):
        values = getattr(config, name)
        if len(set(values)) < len(values):
            raise UsageError(f"{name}={','.join(map(str, values))} names one twice; allowed: once")
        if len(values) > 1 and name != "average" and config.preset != "decay":
            raise UsageError(
                f"{name}={','.join(map(str, values))} with preset={config.preset}; allowed: one, "
                "or preset decay"
            )


def check_places(name: str, texts: Sequence[str]) -> None:
    """Raises UsageError for what is no way to name a checkpoint."""
    for text in texts:
        if text not in WORDS and not text.isdecimal() and tokens_of(text) is None:
            near = suggest(text, WORDS)
            raise UsageError(
                f"{name}={text}; allowed: a step, tokens such as 1.5Mt, {', '.join(WORDS)}"
                + (f"; {near}" if near.startswith("perhaps") else "")
            )
