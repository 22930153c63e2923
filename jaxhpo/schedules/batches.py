"""Tokens and steps: the one place where lengths in one become lengths in the other.

All of it is host arithmetic on Python integers, which do not overflow; only shares of a run and
counts of steps reach the device.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np

from jaxhpo.errors import UsageError
from jaxhpo.schedules.config import LENGTHS, ScheduleConfig, each, stretch
from jaxhpo.schedules.lowering import lower
from jaxhpo.schedules.phases import Schedule


@dataclass(frozen=True)
class Batches:
    """How many tokens each optimizer step sees: `(tokens seen so far, tokens a step from then on)`.

    One stage is a constant batch, several a ramp. A stage begins with the first step before which
    its number of tokens has been seen. Raises UsageError where the stages do not begin at zero, do
    not grow, or have an empty batch.
    """

    stages: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        seen = [seen for seen, _ in self.stages]
        if not seen or seen[0] != 0 or sorted(set(seen)) != seen:
            raise UsageError(
                f"batches: stages begin at tokens {seen}; allowed: 0 first, then later"
            )
        if low := [batch for _, batch in self.stages if batch < 1]:
            raise UsageError(f"batches: a step of {low[0]} tokens; allowed: 1 or more")

    @cached_property
    def corners(self) -> tuple[tuple[int, int, int], ...]:
        """(first step, tokens seen before it, tokens a step) of each stage that any step is in."""
        found = [(0, 0, self.stages[0][1])]
        for threshold, batch in self.stages[1:]:
            step, seen, before = found[-1]
            steps = max(-(-(threshold - seen) // before), 0)
            corner = (step + steps, seen + steps * before, batch)
            found = [*(found if steps else found[:-1]), corner]
        return tuple(found)

    def tokens(self, step: int) -> int:
        """Tokens seen before update number `step`, counting from zero."""
        first, seen, batch = [corner for corner in self.corners if corner[0] <= step][-1]
        return seen + (step - first) * batch

    def steps(self, tokens: int) -> float:
        """Steps after which `tokens` have been seen; between two steps, the share of the second."""
        first, seen, batch = [corner for corner in self.corners if corner[1] <= tokens][-1]
        return first + (tokens - seen) / batch


def in_steps(config: ScheduleConfig, tokens_per_step: int) -> ScheduleConfig:
    """The schedule with its lengths in steps of `tokens_per_step`, whatever its unit.

    Raises UsageError where a length in tokens is less than one step: it was meant in steps.
    """
    if config.unit == "steps":
        return config
    lengths = [(name, length) for name in LENGTHS for length in each(getattr(config, name))]
    lengths += [("phases", stretch(text).length) for text in config.phases or ()]
    for name, length in lengths:
        if 0 < length < tokens_per_step:
            raise UsageError(
                f"schedule.{name}={length:g} is less than one step, which is {tokens_per_step:,} "
                "tokens; with schedule.unit=tokens every length counts tokens, so give this one too"
            )
    return config.scaled(1, tokens_per_step)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class OverTokens:
    """A schedule over tokens, as an optax schedule of the step: exact under a batch ramp.

    Leaves are a Schedule whose lengths are counted in the last batch, and f32[R] corners of the
    ramp: the step, what was seen before it, and a step's batch, both as multiples of the last.
    """

    schedule: Schedule
    step: jax.Array
    seen: jax.Array
    batch: jax.Array

    def __call__(self, step: jax.typing.ArrayLike) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        now = jnp.sum(step[..., None] >= self.step, -1) - 1
        pick = lambda column: jnp.asarray(column)[jnp.maximum(now, 0)]
        return self.schedule(pick(self.seen) + (step - pick(self.step)) * pick(self.batch))


def over_tokens(config: ScheduleConfig, tokens: float, batches: Batches) -> OverTokens:
    """The schedule of a run of `tokens` whose lengths are in tokens, over the steps of `batches`.

    Raises UsageError where the config's lengths are in steps, or do not fit.
    """
    if config.unit != "tokens":
        raise UsageError(f"schedule.unit={config.unit}; allowed over a batch ramp: tokens")
    last = batches.stages[-1][1]
    schedule = lower(config.scaled(1, last), tokens / last)
    step, seen, batch = np.array(batches.corners, np.float64).T
    return OverTokens(schedule, *(np.float32(x) for x in (step, seen / last, batch / last)))


def ramp(begin: int, end: int, increment: int, over: int, sequence: int = 1) -> Batches:
    """A batch that grows by `increment` at equal distances, from `begin` to `end`, until `over`.

    Numbers are samples of `sequence` tokens. Source: Megatron-LM's --rampup-batch-size. Raises
    UsageError where the increments do not lead from begin to end.
    """
    count, rest = divmod(end - begin, increment) if increment > 0 else (0, 1)
    if begin < 1 or count < 0 or rest:
        raise UsageError(f"ramp: {begin} to {end} by {increment}; allowed: whole steps upwards")
    samples = lambda i: math.ceil(over * i / count) if count else 0
    stages = [(samples(i) * sequence, (begin + i * increment) * sequence) for i in range(count + 1)]
    return Batches(tuple(stages))
