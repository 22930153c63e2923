"""From a schedule's config to its table, one entry a kind."""

from collections.abc import Callable, Collection
from dataclasses import replace

from jaxhpo.errors import UsageError
from jaxhpo.schedules import cycles, kinds
from jaxhpo.schedules.config import ScheduleConfig, stretch
from jaxhpo.schedules.phases import FOREVER, SIZES, Phase, Schedule


def _constant(c: ScheduleConfig, steps: float) -> Schedule:
    return kinds.constant(c.peak_lr, c.warmup_steps, c.warmup_from)


def _linear(c: ScheduleConfig, steps: float) -> Schedule:
    return kinds.linear(c.peak_lr, c.decay(steps)[1], c.warmup_steps, c.floor, c.warmup_from)


def _polynomial(c: ScheduleConfig, steps: float) -> Schedule:
    length = c.decay(steps)[1]
    return kinds.polynomial(c.peak_lr, length, c.power, c.warmup_steps, c.floor, c.warmup_from)


def _cosine(c: ScheduleConfig, steps: float) -> Schedule:
    length = c.decay(steps)[1]
    return kinds.cosine(c.peak_lr, length, c.warmup_steps, c.floor, c.power, c.warmup_from)


def _inverse_sqrt(c: ScheduleConfig, steps: float) -> Schedule:
    return kinds.inverse_sqrt(c.peak_lr, c.warmup_steps, c.timescale, c.floor, c.warmup_from)


def _noam(c: ScheduleConfig, steps: float) -> Schedule:
    if not c.warmup_steps:
        raise UsageError("warmup_steps=0 with kind=noam; allowed: above 0, its timescale")
    return kinds.inverse_sqrt(c.peak_lr, c.warmup_steps, c.warmup_steps, c.floor, c.warmup_from)


def _wsd(c: ScheduleConfig, steps: float) -> Schedule:
    start, length = c.decay(steps)
    return kinds.wsd(
        c.peak_lr,
        start - c.warmup_steps,
        length,
        c.warmup_steps,
        c.decay_shape,
        c.floor,
        c.warmup_from,
        c.power,
        c.half_life,
    )


def _cyclic_cosine(c: ScheduleConfig, steps: float) -> Schedule:
    return cycles.cyclic_cosine(
        c.peak_lr,
        cycles.cycle_lengths(steps, c.cycle_steps, c.cycle_growth, whole=False),
        c.cycle_peak,
        c.floor,
        c.power,
        c.warmup_steps,
        c.rewarmup_steps,
        c.warmup_from,
    )


def _cyclic_wsd(c: ScheduleConfig, steps: float) -> Schedule:
    return cycles.cyclic_wsd(
        c.peak_lr,
        cycles.cycle_lengths(steps, c.cycle_steps, c.cycle_growth, whole=True),
        c.cycle_decay,
        c.cycle_basis,
        c.decay_shape,
        c.floor,
        c.cycle_peak,
        c.warmup_steps,
        c.rewarmup_steps,
        c.warmup_from,
        c.power,
        c.half_life,
    )


def _multi_step(c: ScheduleConfig, steps: float) -> Schedule:
    milestones = (0.8 * steps, 0.9 * steps) if c.milestones is None else c.milestones
    late = [milestone for milestone in milestones if milestone > steps]
    if late:
        raise UsageError(f"milestones: {late[0]:g} is after the run: steps={steps:g}")
    factor = c.milestone_factor
    return kinds.multi_step(c.peak_lr, milestones, factor, c.warmup_steps, c.warmup_from)


def _sequence(c: ScheduleConfig, steps: float) -> Schedule:
    if not c.phases:
        raise UsageError("phases are missing; kind=sequence needs some, such as 'cosine 200 to 0'")
    phases = [kinds.warm_up(c.peak_lr, c.warmup_steps, c.warmup_from)]
    for text in c.phases:
        shape, length, begin, end, bend = stretch(text)
        first = kinds.last_rate(phases[-1]) if begin is None else begin * c.peak_lr
        last = (first if shape == "hold" else 0.0) if end is None else end * c.peak_lr
        phases.append(Phase(shape, length, first, last, bend))
    if any(phase.length >= FOREVER for phase in phases):
        raise UsageError("phases: no phase may be longer than 2**31 steps")
    return kinds.sequence(phases)


KINDS: dict[str, Callable[[ScheduleConfig, float], Schedule]] = {
    "constant": _constant,
    "linear": _linear,
    "polynomial": _polynomial,
    "inverse_sqrt": _inverse_sqrt,
    "noam": _noam,
    "cosine": _cosine,
    "cyclic_cosine": _cyclic_cosine,
    "wsd": _wsd,
    "cyclic_wsd": _cyclic_wsd,
    "multi_step": _multi_step,
    "sequence": _sequence,
}
"""Kind -> (config with lengths in steps, steps of the run) -> its table."""

COUNTING = frozenset({"cycle_steps", "cycle_growth", "rewarmup_steps"})
"""Fields on which the number of phases depends: with one of them searched, the largest table."""


def lower(config: ScheduleConfig, steps: float, searched: Collection[str] = ()) -> Schedule:
    """The schedule of one trial as numpy arrays [K], values in rates, lengths in steps.

    K is one of SIZES and depends on `config` and on the names of the fields that are `searched`, so
    it is the same for all trials of a search when `config` is the one they have in common. Raises
    UsageError where a value is outside what its kind allows, or does not fit into `steps`.
    """
    return lower_to(config, steps, table_size(config, steps, searched))


def lower_to(config: ScheduleConfig, steps: float, size: int) -> Schedule:
    """The schedule of one trial in a table of `size` rows."""
    if config.unit != "steps":
        raise UsageError(f"schedule.unit={config.unit}: convert it first, with in_steps")
    config.decay(steps)
    try:
        return KINDS[config.kind](config, steps).padded(size)
    except UsageError as error:
        line = str(error)
        raise UsageError(line if line.startswith("schedule.") else f"schedule.{line}") from None


def table_size(config: ScheduleConfig, steps: float, searched: Collection[str] = ()) -> int:
    """Rows that hold whatever the trials of a search may need."""
    names = {name.removeprefix("schedule.") for name in searched}
    if names & COUNTING:
        return SIZES[-1]
    rows = [SIZES[0]]
    for kind in KINDS if "kind" in names else [config.kind]:
        try:
            rows.append(len(KINDS[kind](replace(config, kind=kind), steps).start))
        except UsageError:
            continue  # a kind that the config leaves open, or a value that its trial will be told
    return max(rows)
