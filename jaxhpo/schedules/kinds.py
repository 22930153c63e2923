"""Schedules with one warm-up and at most one decay, from numbers or traced values.

In every constructor of this room values are rates, `floor` and `warmup_from` are shares of the
peak, and lengths are optimizer steps. Each may be a traced value: then nothing is checked. Plain
numbers that can't be are refused with a UsageError that names the argument.
"""

from collections.abc import Sequence

import jax.numpy as jnp

from jaxhpo.errors import UsageError
from jaxhpo.schedules.checks import (
    check_increasing,
    check_length,
    check_positive,
    check_rate,
    check_share,
    is_plain,
    remainder,
)
from jaxhpo.schedules.phases import FOREVER, Numeric, Phase, Schedule, pack

NEEDS_FLOOR = ("geometric", "inverse")


def warm_up(peak_lr: Numeric, warmup_steps: Numeric, warmup_from: Numeric) -> Phase:
    """The linear rise to the peak that every schedule begins with; of no steps, it is skipped."""
    check_rate("peak_lr", peak_lr)
    check_length("warmup_steps", warmup_steps)
    check_share("warmup_from", warmup_from)
    return Phase("linear", warmup_steps, warmup_from * peak_lr, peak_lr)


def decay(
    shape: str,
    length: Numeric,
    peak_lr: Numeric,
    floor: Numeric = 0.0,
    power: Numeric = 1.0,
    half_life: Numeric | None = None,
    lowest: Numeric | None = None,
) -> Phase:
    """A fall from `peak_lr` to the floor, a share of the peak (or the rate `lowest`)."""
    check_length("decay_steps", length)
    check_share("floor", floor)
    check_positive("power", power)
    if shape in NEEDS_FLOOR and is_plain(floor) and not floor:
        raise UsageError(f"floor=0 with decay_shape={shape}; allowed: above 0, as it divides by it")
    bend = power
    if shape == "exponential":
        if half_life is None:
            raise UsageError("half_life is missing; decay_shape=exponential needs one, above 0")
        check_positive("half_life", half_life)
        bend = half_life
    end = floor * peak_lr if lowest is None else lowest
    return Phase(shape, length, peak_lr, end, bend)


def constant(peak_lr: Numeric, warmup_steps: Numeric = 0.0, warmup_from: Numeric = 0.0) -> Schedule:
    """The peak for ever, after a linear warm-up."""
    hold = Phase("hold", FOREVER, peak_lr, peak_lr)
    return pack([warm_up(peak_lr, warmup_steps, warmup_from), hold])


def linear(
    peak_lr: Numeric,
    decay_steps: Numeric,
    warmup_steps: Numeric = 0.0,
    floor: Numeric = 0.0,
    warmup_from: Numeric = 0.0,
) -> Schedule:
    """A linear decay to the floor. Source: Devlin et al. 2019 (arXiv 1810.04805), BERT."""
    fall = decay("linear", decay_steps, peak_lr, floor)
    return pack([warm_up(peak_lr, warmup_steps, warmup_from), fall])


def polynomial(
    peak_lr: Numeric,
    decay_steps: Numeric,
    power: Numeric = 1.0,
    warmup_steps: Numeric = 0.0,
    floor: Numeric = 0.0,
    warmup_from: Numeric = 0.0,
) -> Schedule:
    """floor + (peak - floor) (1 - p)^power, p the share of the decay that is done."""
    fall = decay("polynomial", decay_steps, peak_lr, floor, power)
    return pack([warm_up(peak_lr, warmup_steps, warmup_from), fall])


def cosine(
    peak_lr: Numeric,
    decay_steps: Numeric,
    warmup_steps: Numeric = 0.0,
    floor: Numeric = 0.0,
    power: Numeric = 1.0,
    warmup_from: Numeric = 0.0,
) -> Schedule:
    """Half a cosine down to the floor; `decay_steps` do not count the warm-up, unlike in optax.

    `power` is optax's exponent of the half cosine. Source: Loshchilov and Hutter 2017 (1608.03983).
    """
    fall = decay("cosine", decay_steps, peak_lr, floor, power)
    return pack([warm_up(peak_lr, warmup_steps, warmup_from), fall])


def inverse_sqrt(
    peak_lr: Numeric,
    warmup_steps: Numeric = 0.0,
    timescale: Numeric | None = None,
    floor: Numeric = 0.0,
    warmup_from: Numeric = 0.0,
) -> Schedule:
    """peak sqrt(t / (t + s)), s steps after the warm-up, for ever and never below the floor.

    `timescale` t is by default the warm-up, or 10,000 steps without one, as in transformers and
    big_vision; with the default and a warm-up it is Noam's curve.
    """
    check_positive("timescale", timescale)
    check_share("floor", floor)
    if timescale is None and is_plain(warmup_steps):
        timescale = warmup_steps or 10_000.0
    elif timescale is None:
        timescale = jnp.where(warmup_steps == 0, 10_000.0, warmup_steps)
    fall = Phase("inverse_sqrt", FOREVER, peak_lr, floor * peak_lr, timescale)
    return pack([warm_up(peak_lr, warmup_steps, warmup_from), fall])


def noam(d_model: Numeric, warmup_steps: Numeric, factor: Numeric = 1.0) -> Schedule:
    """factor d_model^-0.5 min(s^-0.5, s warmup_steps^-1.5), zero at step zero.

    The paper counts steps from one: its rate of step s is this schedule's at s. Source: Vaswani et
    al. 2017 (arXiv 1706.03762).
    """
    check_positive("d_model", d_model)
    check_positive("warmup_steps", warmup_steps)
    peak = factor * (d_model * warmup_steps) ** -0.5
    return inverse_sqrt(peak, warmup_steps, warmup_steps)


def wsd(
    peak_lr: Numeric,
    stable_steps: Numeric,
    decay_steps: Numeric,
    warmup_steps: Numeric = 0.0,
    decay_shape: str = "linear",
    floor: Numeric = 0.0,
    warmup_from: Numeric = 0.0,
    power: Numeric = 1.0,
    half_life: Numeric | None = None,
) -> Schedule:
    """Warm-up, stable, decay: linear, polynomial, cosine, 1-sqrt, exponential, geometric, inverse.

    An exponential decay halves the rate every `half_life` steps and only stops at the floor, which
    it need not reach. Source: Hu et al. 2024 (arXiv 2404.06395), MiniCPM.
    """
    check_length("stable_steps", stable_steps)
    stable = Phase("hold", stable_steps, peak_lr, peak_lr)
    fall = decay(decay_shape, decay_steps, peak_lr, floor, power, half_life)
    return pack([warm_up(peak_lr, warmup_steps, warmup_from), stable, fall])


def multi_step(
    peak_lr: Numeric,
    milestones: Sequence[Numeric],
    factor: Numeric | Sequence[Numeric] = 0.1,
    warmup_steps: Numeric = 0.0,
    warmup_from: Numeric = 0.0,
) -> Schedule:
    """Constant, times `factor` at each milestone (one for all, or one each): the rate jumps.

    Source: DeepSeek-AI 2024 (arXiv 2401.02954), with factors of 10^-0.5.
    """
    check_increasing("milestones", milestones)
    factors = list(factor) if isinstance(factor, Sequence) else [factor] * len(milestones)
    if len(factors) != len(milestones):
        raise UsageError(f"factor has {len(factors)} numbers for {len(milestones)} milestones")
    for each in factors:
        check_rate("factor", each)
    phases = [warm_up(peak_lr, warmup_steps, warmup_from)]
    at, rate = warmup_steps, peak_lr
    for milestone, times in zip(milestones, factors, strict=True):
        early = "milestones: {whole:g} comes before {parts:g}, the end of warmup_steps"
        phases.append(Phase("hold", remainder(milestone, at, early), rate, rate))
        at, rate = milestone, rate * times
    return pack([*phases, Phase("hold", FOREVER, rate, rate)])


def sequence(phases: Sequence[Phase]) -> Schedule:
    """Any phases in a row, each with its own length and shape; the last one's end for ever.

    The rate jumps where a phase begins at another value than the one before it ended at.
    """
    if not phases:
        raise UsageError("phases: there must be at least one")
    for phase in phases:
        check_length(f"length of {phase.shape}", phase.length)
        check_rate(f"begin of {phase.shape}", phase.begin)
        check_rate(f"end of {phase.shape}", phase.end)
        check_positive(f"bend of {phase.shape}", phase.bend)
        if phase.shape in NEEDS_FLOOR and is_plain(phase.end, phase.begin):
            check_positive(f"begin and end of {phase.shape}", phase.begin, phase.end)
    return pack(phases)


def last_rate(phase: Phase) -> Numeric:
    """The rate that a phase ends at."""
    if phase.shape == "exponential":
        reached = phase.begin * 2.0 ** (-phase.length / phase.bend)
    elif phase.shape == "inverse_sqrt":
        reached = phase.begin * (phase.bend / (phase.length + phase.bend)) ** 0.5
    else:
        return phase.end
    plain = is_plain(reached, phase.end)
    return max(reached, phase.end) if plain else jnp.maximum(reached, phase.end)
