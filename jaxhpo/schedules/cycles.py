"""Schedules that go up and down more than once: warm restarts and WSD-S."""

import math
from collections.abc import Sequence
from typing import Literal

from jaxhpo.errors import UsageError
from jaxhpo.schedules.checks import (
    check_length,
    check_positive,
    check_rate,
    check_share,
    is_plain,
    remainder,
)
from jaxhpo.schedules.kinds import decay, last_rate, warm_up
from jaxhpo.schedules.phases import Numeric, Phase, Schedule, pack


def growing(first: Numeric, count: int, growth: Numeric = 1.0) -> tuple[Numeric, ...]:
    """Lengths of `count` cycles, each `growth` times the one before."""
    return tuple(first * growth**i for i in range(count))


def cyclic_cosine(
    peak_lr: Numeric,
    cycle_steps: Sequence[Numeric],
    cycle_peak: Numeric = 1.0,
    floor: Numeric = 0.0,
    power: Numeric = 1.0,
    warmup_steps: Numeric = 0.0,
    rewarmup_steps: Numeric = 0.0,
    warmup_from: Numeric = 0.0,
) -> Schedule:
    """A cosine decay in each cycle, from a peak that shrinks by `cycle_peak` from cycle to cycle.

    The rate jumps up at every restart unless there is a re-warm-up. A cycle's length counts its
    warm-up. The floor is a share of the first peak. Source: Loshchilov and Hutter 2017 (arXiv
    1608.03983), SGDR; `growing(period, count, multiplier)` gives its lengths.
    """
    phases: list[Phase] = []
    for i, (whole, peak) in enumerate(_cycles(peak_lr, cycle_steps, cycle_peak, floor)):
        rise = _rise(phases, i, peak, warmup_steps, rewarmup_steps, warmup_from)
        length = remainder(whole, rise.length, _too_short(i))
        fall = decay("cosine", length, peak, floor, power, lowest=floor * peak_lr)
        phases += [*_unless_empty(rise), fall]
    return pack(phases)


def cyclic_wsd(
    peak_lr: Numeric,
    cycle_steps: Sequence[Numeric],
    cycle_decay: Numeric = 0.1,
    cycle_basis: Literal["cycle", "cumulative"] = "cycle",
    decay_shape: str = "linear",
    floor: Numeric = 0.0,
    cycle_peak: Numeric = 1.0,
    warmup_steps: Numeric = 0.0,
    rewarmup_steps: Numeric = 0.0,
    warmup_from: Numeric = 0.0,
    power: Numeric = 1.0,
    half_life: Numeric | None = None,
) -> Schedule:
    """Warms up once, then repeats hold and decay; after a decay the rate jumps back to the peak.

    The decay of a cycle is the share `cycle_decay` of the cycle's length or, with `cycle_basis`
    "cumulative", of all steps up to its end: both are found in the wild. With `rewarmup_steps` each
    later cycle rises linearly instead of jumping. The first cycle counts the warm-up. Source: Wen
    et al. 2024 (arXiv 2410.05192), WSD-S.
    """
    check_share("cycle_decay", cycle_decay)
    phases: list[Phase] = []
    seen: Numeric = 0.0
    for i, (whole, peak) in enumerate(_cycles(peak_lr, cycle_steps, cycle_peak, floor)):
        seen = seen + whole
        length = cycle_decay * (whole if cycle_basis == "cycle" else seen)
        rise = _rise(phases, i, peak, warmup_steps, rewarmup_steps, warmup_from)
        used = rise.length + length
        hold = Phase("hold", remainder(whole, used, _too_short(i)), peak, peak)
        fall = decay(decay_shape, length, peak, floor, power, half_life, lowest=floor * peak_lr)
        phases += [*_unless_empty(rise), hold, fall]
    return pack(phases)


def cycle_lengths(
    steps: float, first: float | Sequence[float] | None, growth: float, whole: bool
) -> tuple[float, ...]:
    """Lengths of the cycles of a run from what a config says of them.

    None: four that fill the run. A number: as many as begin in the run; `whole` refuses a last one
    that the run would cut. Several: they must add up to the run. Raises UsageError.
    """
    check_positive("cycle_growth", growth)
    if first is None:
        shares = growing(1.0, 4, growth)
        return tuple(float(steps * share / sum(shares)) for share in shares)
    if isinstance(first, Sequence):
        if growth != 1.0:
            raise UsageError(
                f"cycle_growth={growth:g} with a length for each cycle; leave one of them out"
            )
        if not math.isclose(sum(first), steps, rel_tol=1e-9):
            listed = ", ".join(f"{length:g}" for length in first)
            raise UsageError(
                f"cycle_steps={listed} add up to {sum(first):g}, not to steps={steps:g}"
            )
        return tuple(first)
    check_positive("cycle_steps", first)
    lengths: list[float] = []
    while sum(lengths) < steps * (1 - 1e-9):
        if len(lengths) == _MOST_CYCLES:
            raise UsageError(
                f"cycle_steps={first:g} gives more than {_MOST_CYCLES} cycles in steps={steps:g}"
            )
        lengths.append(first * growth ** len(lengths))
    if whole and not math.isclose(sum(lengths), steps, rel_tol=1e-9):
        raise UsageError(
            f"cycle_steps={first:g} does not fill steps={steps:g} with whole cycles"
            f"{_nearest(steps, first) if growth == 1.0 else ''}"
        )
    return tuple(lengths)


_MOST_CYCLES = 64


def _cycles(peak_lr, cycle_steps, cycle_peak, floor) -> list[tuple[Numeric, Numeric]]:
    """Length and peak of each cycle."""
    check_rate("peak_lr", peak_lr)
    check_rate("cycle_peak", cycle_peak)
    check_share("floor", floor)
    if not cycle_steps:
        raise UsageError("cycle_steps: there must be at least one cycle")
    check_positive("cycle_steps", *cycle_steps)
    count = len(cycle_steps)
    if is_plain(cycle_peak, floor) and (last := cycle_peak ** (count - 1)) < floor:
        raise UsageError(
            f"floor={floor:g} is above the peak of cycle {count}, which with "
            f"cycle_peak={cycle_peak:g} is {last:g} of the first"
        )
    return [(whole, peak_lr * cycle_peak**i) for i, whole in enumerate(cycle_steps)]


def _rise(phases, i, peak, warmup_steps, rewarmup_steps, warmup_from) -> Phase:
    if i == 0:
        return warm_up(peak, warmup_steps, warmup_from)
    check_length("rewarmup_steps", rewarmup_steps)
    return Phase("linear", rewarmup_steps, last_rate(phases[-1]), peak)


def _unless_empty(rise: Phase) -> list[Phase]:
    """A table has room for few phases: one that is never there takes none."""
    return [] if is_plain(rise.length) and rise.length == 0 else [rise]


def _too_short(i: int) -> str:
    return f"cycle_steps: cycle {i + 1} has {{whole:g}}, its warm-up and decay take {{parts:g}}"


def _nearest(steps: float, first: float) -> str:
    count = steps / first
    near = sorted({max(1, math.floor(count)), math.ceil(count)})
    return f"; the nearest that do: {' or '.join(f'{steps / each:g}' for each in near)}"
