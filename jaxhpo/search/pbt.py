"""Population-based training. Source: Jaderberg et al. 2017 (arXiv 1711.09846)."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from jaxhpo.errors import Diverged, UsageError
from jaxhpo.search.config import PbtConfig
from jaxhpo.search.exploit import EXPLOITS, Standing
from jaxhpo.search.explore import explore
from jaxhpo.search.plan import Assignment, Extent, Parent, Plan, Point, Report, Result, by_trial
from jaxhpo.search.segments import check_length, check_seed, cut, longest
from jaxhpo.search.space import Space


class Pbt:
    """A fixed number of members; at every selection the losers take over better members' states.

    A loser's place goes to a new trial (new id, and the seed of that id) whose parent is the donor
    and whose point is explored; everybody else carries on. Selections are at step
    `config.first_selection` and every `config.interval` steps from there, as long as they are
    before `anneal_start` (the final decay, which would make them greedy) and before `steps`.
    Segments are at most `config.interval` steps long. A lone member is never selected.

    Members decide all at once, from one report. The paper's workers, and the sequential toy runs
    made after it, take turns instead: a worker there sees the results of those updated before it in
    the same round, and copies a tied rival. Here a tie is broken by age (truncation) or kept
    (tournament, t-test).

    `initial` gives the first members' points; the rest are spread over the space. Raises UsageError
    on a static dimension or a point outside the space; `next` raises Diverged if no member has a
    finite fitness.
    """

    def __init__(
        self,
        space: Space,
        config: PbtConfig,
        steps: int,
        seed: int,
        anneal_start: int | None = None,
        initial: Sequence[Point] = (),
    ) -> None:
        self.space, self.config, self.seed = _traced(space), config, check_seed(seed)
        self.steps = check_length("steps", steps)
        until = steps if anneal_start is None else min(anneal_start, steps)
        selections = range(config.first_selection, until, config.interval)
        selections = selections if config.members > 1 else range(0)
        self.ends = cut([*selections, steps], config.interval)
        # an improvement needs an earlier loss, so it can't rank at the end of the first segment
        first = self.ends[0] if config.fitness == "improvement" else 0
        self._selections = tuple(step for step in selections if step > first)
        self.initial = self._initial(initial)
        self._round, self._lives = 0, 0
        self._plan: Plan | None = None
        self._previous: dict[int, tuple[int, float]] = {}  # trial -> step and loss

    @property
    def selections(self) -> int:
        """Number of selections."""
        return len(self._selections)

    @property
    def extent(self) -> Extent:
        members = self.config.members
        probe = self.config.probe_steps if self._selections else 0
        return Extent(
            members,
            members,
            longest(self.ends),
            trained=members * self.steps,
            probe=probe,
            probed=self.selections * members * probe,
        )

    @property
    def foreseen(self) -> None:
        return None

    def first(self) -> Plan:
        self._round, self._lives, self._previous = 0, self.config.members, {}
        rows = [Assignment(i, point, None, 0, seed=i) for i, point in enumerate(self.initial)]
        return self._planned(rows)

    def next(self, report: Report) -> Plan | None:
        if self._plan is None:
            raise ValueError("nothing is planned: a report answers a plan")
        results = by_trial(self._plan, report)
        rows = [replace(row, parent=Parent(row.trial)) for row in self._plan.assignments]
        if not any(math.isfinite(result.loss) for result in report):
            raise Diverged(f"no member has a finite loss at step {self.ends[self._round]}")
        if self.ends[self._round] in self._selections:
            rows = self._selected(rows, [results[row.trial] for row in rows])
        elif not self._previous:
            self._previous = {trial: (r.step, r.loss) for trial, r in results.items()}
        self._round += 1
        if self._round == len(self.ends):
            self._plan = None
            return None
        return self._planned(rows)

    def _planned(self, rows: Sequence[Assignment]) -> Plan:
        end = self.ends[self._round]
        steps = end - (self.ends[self._round - 1] if self._round else 0)
        probe = self.config.probe_steps if end in self._selections else 0
        self._plan = Plan(tuple(replace(row, steps=steps, probe=probe) for row in rows))
        return self._plan

    def _selected(self, rows: list[Assignment], results: list[Result]) -> list[Assignment]:
        standings = [self._standing(result) for result in results]
        if not any(standing.alive for standing in standings):
            raise Diverged(f"no member has a finite fitness at step {self.ends[self._round]}")
        # a generator of its own for every place: one member's fate shifts nobody else's draws
        rngs = [np.random.default_rng([self.seed, self._round + 1, i]) for i in range(len(rows))]
        donors = EXPLOITS[self.config.exploit](standings, self.config, rngs)
        selected, previous = [], {}
        running = [row.point for row, donor in zip(rows, donors, strict=True) if donor is None]
        for row, result, donor, rng in zip(rows, results, donors, rngs, strict=True):
            if donor is not None:
                source = row if self.config.inherit == "weights" else rows[donor]
                point = self._explored(source, results[donor], running, rng)
                running.append(point)
                row = Assignment(self._lives, point, Parent(rows[donor].trial), 0, self._lives)
                result = results[donor]
                self._lives += 1
            selected.append(row)
            previous[row.trial] = (result.step, result.loss)
        self._previous = previous
        return selected

    def _explored(
        self,
        source: Assignment,
        donor: Result,
        running: Sequence[Point],
        rng: np.random.Generator,
    ) -> Point:
        """The point of a copy: `running` are those of all who carry on or have been copied."""
        return explore(source.point, self.space, self.config, rng)

    def _standing(self, result: Result) -> Standing:
        score, samples = result.score, result.samples
        if self.config.fitness == "loss":
            score = result.loss
        if self.config.fitness == "improvement":
            step, loss = self._previous[result.trial]
            score = (result.loss - loss) / (result.step - step)
            samples = tuple((sample - loss) / (result.step - step) for sample in samples)
        # a cool-down may hide that the member itself has diverged
        return Standing(result.trial, score if math.isfinite(result.loss) else math.nan, samples)

    def _initial(self, given: Sequence[Point]) -> tuple[Point, ...]:
        members = self.config.members
        if len(given) > members:
            raise UsageError(f"initial: {len(given)} points for pbt.members={members}; give fewer")
        rng = np.random.default_rng([self.seed, 0])
        spread = self.space.sample_spread(rng, members - len(given))
        return (*(self.space.check(point) for point in given), *spread)


def _traced(space: Space) -> Space:
    if space.static:
        raise UsageError(
            f"space: {', '.join(space.static)} changes shapes, which PBT cannot do to a running "
            "member; search only traced dimensions"
        )
    if not space.dimensions:
        raise UsageError("space: PBT needs at least one dimension to explore")
    return space
