"""From a schedule's numbers to its phases, one entry a kind."""

from jaxhpo.schedules.config import ScheduleConfig
from jaxhpo.schedules.phases import Phase, Schedule, pack

Phases = list[Phase]


def _constant(config: ScheduleConfig, steps: int) -> Phases:
    return [Phase("hold", 1.0, config.peak_lr, config.peak_lr)]


def _cosine(config: ScheduleConfig, steps: int) -> Phases:
    _, length = config.decay(steps)
    return [Phase("cosine", length, config.peak_lr, config.floor * config.peak_lr)]


def _wsd(config: ScheduleConfig, steps: int) -> Phases:
    start, length = config.decay(steps)
    peak = config.peak_lr
    return [
        Phase("hold", start - config.warmup_steps, peak, peak),
        Phase(config.decay_shape, length, peak, config.floor * peak),
    ]


KINDS = {"constant": _constant, "cosine": _cosine, "wsd": _wsd}
"""What follows the warm-up. Sources: Loshchilov and Hutter 2017 (cosine), Hu et al. 2024 (wsd)."""

PHASES = 3
"""Columns that hold every kind above."""


def lower(config: ScheduleConfig, steps: int) -> Schedule:
    """The schedule of one trial as numpy arrays [PHASES], values in rates, lengths in steps.

    Raises UsageError where warm-up and decay do not fit into `steps`.
    """
    config.decay(steps)
    warmup = Phase("linear", config.warmup_steps, 0.0, config.peak_lr)
    return pack([warmup, *KINDS[config.kind](config, steps)], PHASES)
