"""The children of a fork: where each begins, its clock, its point and how long it trains."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxhpo.config import class_of, difference, flatten, is_static, options
from jaxhpo.config.forks import PRESETS
from jaxhpo.config.run import ForkRun, Run
from jaxhpo.errors import UsageError
from jaxhpo.record.history import History
from jaxhpo.record.lineage import run_id
from jaxhpo.search.forked import Child
from jaxhpo.search.plan import KEEP_ALL, Point
from jaxhpo.study.clock import Clock, in_its_unit, in_use, rate_at
from jaxhpo.study.kept import Kept
from jaxhpo.study.origin import Origin, Source


@dataclass(frozen=True)
class Parent:
    """The run that is forked: what it kept, its config, and what it says about its own origin."""

    kept: Kept
    config: Run
    past: History
    origin: Origin | None

    def tokens(self, trial: int, step: int) -> int:
        """Tokens that a trial's weights have seen by a step, its ancestors' included."""
        each = self.past.start["tokens_per_step"] if self.past.start else 0
        if self.origin is None:
            return step * each
        child = self._child(trial)
        return self.origin.sources[child.source].tokens + (step - child.start) * each

    def windows(self, step: int) -> int:
        """Sequences that the data position is ahead at a step."""
        shift = self.origin.data_shift if self.origin else 0
        return (step + shift) * self.config.data.batch_size

    def clock(self, step: int) -> int:
        """The step on the schedule's own clock."""
        return step - (self.origin.schedule_shift if self.origin else 0)

    def _child(self, trial: int) -> Child:
        if self.origin is None:
            raise LookupError(f"trial {trial} was not forked")
        return self.origin.children[trial - len(self.origin.sources)]


@dataclass(frozen=True)
class Fork:
    """A fork whose sources and parts are known; makes its children."""

    config: ForkRun
    parent: Parent
    sources: tuple[Source, ...]
    kept: tuple[str, ...]
    reset: tuple[str, ...]

    def origin(self, run: str, name: str) -> Origin:
        children = self.children()
        first, start = self.sources[0], children[0].start
        batches = -(-first.windows // self.config.data.batch_size)
        data_shift = (batches if "data" in self.kept else 0) - start
        clock = start - self.schedule_shift
        if len({(s.step - s.phase, s.windows - s.step * self.batch) for s in self.sources}) > 1:
            raise UsageError(f"at={','.join(self.config.at)}: {name} was itself forked in between")
        if clock < 0 or (len(self.sources) > 1 and "step" not in self.kept):
            raise UsageError(
                "a ladder keeps the step; leave out --reset step, or fork at one point"
            )
        return Origin(
            preset=self.config.preset,
            run=run,
            name=name,
            id=run_id(self.parent.past),
            kept=self.kept,
            reset=self.reset,
            schedule=self.schedule,
            difference=self.differences(),
            fingerprints=dict((self.parent.past.start or {}).get("fingerprints", {})),
            sources=self.sources,
            children=children,
            changes=tuple(self.changes(child) for child in children),
            rates=tuple(self.rate(child) for child in children),
            data_shift=data_shift,
            schedule_shift=self.schedule_shift,
            stops=self.stops(children),
        )

    @property
    def batch(self) -> int:
        return self.parent.config.data.batch_size

    @property
    def bends(self) -> bool:
        return PRESETS[self.config.preset].bends

    @property
    def schedule(self) -> str:
        if self.bends:
            return PRESETS[self.config.preset].schedule
        return "kept" if "schedule" in self.kept else "restarted"

    @property
    def schedule_shift(self) -> int:
        """Steps that the schedule's clock is behind the children's step: equal for all."""
        source, start = self.sources[0], self.start(self.sources[0])
        phase = 0 if "schedule" in self.reset else source.phase
        return start - phase

    def start(self, source: Source) -> int:
        return source.step if "step" in self.kept else 0

    def differences(self) -> dict[str, tuple[Any, Any]]:
        """Options that change what is computed and are not the parent's."""
        shared = options(Run)
        return {
            name: (old, new)
            for name, old, new in difference(self.parent.config, self.config)
            if name in shared
            and class_of(name) == "semantic"
            and (name != "steps" or new != self.steps_before)
        }

    def changes(self, child: Child) -> dict[str, tuple[Any, Any]]:
        """Hyperparameters whose value is not the one that the child's source trained with."""
        before = values_in_use(
            self.parent.config, self.sources[child.source].point, self.steps_before
        )
        after = values_in_use(self.config, child.point, self.config.steps)
        names = (name for name in {**before, **after} if name not in self.differences())
        return {n: (before.get(n), after.get(n)) for n in names if before.get(n) != after.get(n)}

    # children

    def children(self) -> tuple[Child, ...]:
        made = []
        for number, source in enumerate(self.sources):
            for length in self.config.decay or (None,):
                for shape in self.config.shape or (None,):
                    made.append((number, source, length, shape))
        fresh = 1 + max(source.seed for source in self.sources)
        return tuple(
            self.child(number, source, length, shape, fresh + place, alone=len(made) == 1)
            for place, (number, source, length, shape) in enumerate(made)
        )

    def child(
        self,
        number: int,
        source: Source,
        length: int | None,
        shape: str | None,
        seed: int,
        alone: bool,
    ) -> Child:
        own = dict(source.point) if "hyperparameters" in self.kept else {}
        changed = {name for name, _, _ in difference(self.parent.config, self.config)}
        point = {name: value for name, value in own.items() if name not in changed}
        start = self.start(source)
        course, steps = self.course(source, point, start, length)
        if shape is not None:
            course["schedule.decay_shape"] = shape
        return Child(
            source=number,
            point={**point, **course},
            start=start,
            steps=steps,
            seed=source.seed if "key" in self.kept else seed,
            keep=tuple(part for part in KEEP_ALL if part in self.kept),
            group="" if alone else self.label(source, steps, shape),
        )

    def label(self, source: Source, steps: int, shape: str | None) -> str:
        words = [f"at {source.step}"] if len(self.sources) > 1 else []
        words += [f"decay {steps}"] if len(self.config.decay) > 1 or not words else []
        return " ".join([*words, *([shape] if shape else [])])

    def course(
        self, source: Source, point: Point, start: int, length: int | None
    ) -> tuple[dict[str, Any], int]:
        """The schedule's values that a preset changes, and how many steps the child makes."""
        if self.config.preset == "decay":
            if self.config.steps != self.steps_before:
                raise UsageError(
                    f"steps={self.config.steps} with preset=decay; leave it out: the decay's "
                    "length is decay"
                )
            return self.decay(source, point, length), length or self.default_decay(source)
        steps = self.config.steps - start
        if steps < 1:
            raise UsageError(
                f"steps={self.config.steps}, but the fork begins at step {start}; allowed: more"
            )
        if not self.bends:
            return {}, steps
        if length is None:
            length = self.decay_before
        if length > steps:
            raise UsageError(
                f"decay={length} is longer than the {steps} steps from the fork at step {start} to "
                f"steps={self.config.steps}; allowed: {steps} or fewer"
            )
        end = source.phase + steps
        return self.lengths(source, point, end - length, length), steps

    def decay(self, source: Source, point: Point, length: int | None) -> dict[str, Any]:
        """A decay that begins at once, from the rate that the next step would have had."""
        length = length or self.default_decay(source)
        if source.step + length >= 2**31:
            raise UsageError(f"decay={length}; allowed: up to {2**31 - 1 - source.step}")
        course = self.lengths(source, point, source.phase, length)
        used = in_use(self.config, point)
        rate = rate_at(self.parent.config, source.point, self.clock(source), source.step)
        if rate == 0.0 and used.peak_lr > 0.0:
            raise UsageError(
                f"preset=decay at step {source.step}, where the learning rate is 0 already; fork "
                "before the decay, such as --at stable-end, or give --preset recycle"
            )
        if not math.isclose(rate, used.peak_lr, rel_tol=1e-6):
            share = min(1.0, used.floor * used.peak_lr / rate) if rate > 0 else 1.0
            course |= {"schedule.peak_lr": rate, "schedule.floor": share}
        return course

    def lengths(self, source: Source, point: Point, start: int, length: int) -> dict[str, Any]:
        warmup = min(in_use(self.config, point).warmup_steps, float(source.phase))
        course = {"warmup_steps": warmup, "decay_start": start, "decay_steps": length}
        own = {f"schedule.{name}": in_its_unit(self.config, n) for name, n in course.items()}
        return {"schedule.kind": "wsd", **own}

    def default_decay(self, source: Source) -> int:
        """A fifth of all steps."""
        return max(1, source.step // 4)

    @property
    def steps_before(self) -> int:
        origin = self.parent.origin
        return origin.total_steps if origin else self.parent.config.steps

    @property
    def decay_before(self) -> int:
        """The length of the parent's decay."""
        length = in_use(self.parent.config, self.sources[0].point).decay_steps
        return int(length) if length is not None else self.config.steps // 5

    def clock(self, source: Source) -> Clock:
        return Clock(source.step - source.phase)

    def rate(self, child: Child) -> float:
        """Learning rate of a child's first step."""
        return rate_at(self.config, child.point, Clock(self.schedule_shift), child.start)

    def stops(self, children: Sequence[Child]) -> tuple[int, ...]:
        """Steps at which a lone child's segments end, besides those that are kept."""
        (first, *others) = children
        used = in_use(self.config, first.point)
        if others or used.kind != "wsd":
            return ()
        stop = int(used.decay(self.config.steps)[0]) + self.schedule_shift
        return (stop,) if first.start < stop < first.start + first.steps else ()


def values_in_use(config: Run, point: Point, steps: int) -> dict[str, Any]:
    """The traced hyperparameters of a member by dotted name, its schedule's course in steps."""
    values = {n: v for n, v in flatten(config).items() if n in options(Run) and not is_static(n)}
    values |= point
    used = in_use(config, point)
    if used.kind != "wsd":
        return values
    start, length = used.decay(steps)
    course = {"warmup_steps": used.warmup_steps, "decay_start": start, "decay_steps": length}
    return values | {f"schedule.{name}": float(value) for name, value in course.items()}
