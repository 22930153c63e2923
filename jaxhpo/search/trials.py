"""Trials of a search: a proposer says where they start, a stopper which of them train on."""

import math
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace

from jaxhpo.errors import Diverged, UsageError
from jaxhpo.search.plan import Assignment, Extent, Parent, Plan, Point, Report, Result, by_trial
from jaxhpo.search.proposers import Proposer
from jaxhpo.search.segments import check_length
from jaxhpo.search.stoppers import Fork, Job, Outcome, Stopper, even_part


@dataclass(frozen=True)
class _Row:
    """A trial in a place: what it does next, the step it stands at, and its job."""

    assignment: Assignment
    at: int
    job: Job

    @property
    def left(self) -> int:
        return self.job.until - self.at

    def after(self, result: Result) -> "_Row":
        assignment = replace(self.assignment, parent=Parent(self.job.trial), probe=0)
        return _Row(assignment, result.step, self.job)


class Trials:
    """Trials in at most `places` places; a place that gets free takes the next at once.

    Plans are cut so that trials stay in step: a row trains a whole number of the stopper's ticks,
    or what is left of its job, and all rows of a plan equally many. No row trains more than
    `segment` steps at once. A job that ranks ends with `probe` cool-down steps.

    A trial that diverges is let go, whatever its job was. Trial i has seed i, a fork its parent's.
    `base` is added to every proposed point. `next` raises Diverged where no trial of all was left
    with a finite score.
    """

    def __init__(
        self,
        proposer: Proposer,
        stopper: Stopper,
        segment: int,
        places: int | None = None,
        probe: int = 0,
        base: Point | None = None,
    ) -> None:
        self.proposer, self.stopper = proposer, stopper
        self.bounds = stopper.bounds
        most = self.bounds.rows
        self.places = most if places is None else min(check_length("places", places), most)
        self.tick = even_part(self.bounds.tick, check_length("segment", segment))
        self.longest = max(segment // self.tick, 1) * self.tick
        self.probe = probe if self.bounds.ranked else 0
        self.base = dict(base or {})
        self._forget()

    def _forget(self) -> None:
        self._plan: Plan | None = None
        self._rows: list[_Row] = []
        self._known: dict[int, _Row] = {}  # by trial: the latest row of each
        self._proposed: dict[int, int] = {}  # trial -> which of the proposals it was
        self._open: set[int] = set()  # proposed, and not yet let go
        self._finite = False

    @property
    def extent(self) -> Extent:
        paused = self.stopper.most_paused(self.places)
        spans = self.bounds.spans
        starts = {at for start, end in spans for at in range(start, end, self.tick)}
        return Extent(
            rows=self.places,
            held=min(self.places + paused, self.bounds.trials),
            steps=max(min(end - start, self.longest) for start, end in spans),
            trained=self.bounds.trained,
            probe=self.probe,
            probed=self.bounds.ranked * self.probe,
            starts=min(self.places, len(starts)),
        )

    @property
    def foreseen(self) -> tuple[Point, ...] | None:
        if self.base:  # forks have points of their own, and depend on who diverged
            return None
        limit = self.proposer.limit
        count = self.bounds.trials if limit is None else min(self.bounds.trials, limit)
        return self.proposer.foreseen(count)

    def first(self) -> Plan:
        self._forget()
        self.proposer.start()
        self.stopper.start()
        plan = self._planned([])
        if plan is None:
            raise UsageError(
                f"search.trials={self.bounds.trials}: the study has as many already; raise it, or "
                "name another search.study"
            )
        return plan

    def next(self, report: Report) -> Plan | None:
        if self._plan is None:
            raise ValueError("nothing is planned: a report answers a plan")
        results = by_trial(self._plan, report)
        rows = [row.after(results[row.job.trial]) for row in self._rows]
        self._known |= {row.job.trial: row for row in rows}
        outcomes = [_outcome(row, results[row.job.trial]) for row in rows]
        # in order of age, so that nothing depends on who sits where
        ended = sorted((o for o in outcomes if o is not None), key=lambda o: o.trial)
        self.stopper.report([self._told(outcome) for outcome in ended])
        gone = {outcome.trial for outcome in ended}
        plan = self._planned([None if row.job.trial in gone else row for row in rows])
        if plan is None and not self._finite:
            raise Diverged(f"none of {len(self._known)} trials has a finite loss")
        return plan

    def close(self) -> None:
        """Lets go of what the proposer holds outside this process, if it does."""
        if (close := getattr(self.proposer, "close", None)) is not None:
            close()

    def _planned(self, places: Sequence[_Row | None]) -> Plan | None:
        # before new trials are asked for: who waits for an answer must not seem to be busy
        self._let_go(self._open - {row.job.trial for row in places if row} - self.stopper.paused)
        rows = self._filled(places)
        if not rows:
            self._let_go(self._open)
            self._plan = None
            return None
        paused = self.stopper.paused - {row.job.trial for row in rows}
        ticks = min(-(-row.left // self.tick) for row in rows)
        most = min(ticks * self.tick, self.longest)
        self._rows = [replace(row, assignment=self._assignment(row, most)) for row in rows]
        self._plan = Plan(tuple(row.assignment for row in self._rows), tuple(sorted(paused)))
        return self._plan

    def _let_go(self, trials: Set[int]) -> None:
        for trial in sorted(trials):
            self.proposer.leave(self._proposed[trial])
        self._open = self._open - trials

    def _assignment(self, row: _Row, most: int) -> Assignment:
        steps = min(most, row.left)
        probe = self.probe if row.job.ranks and steps == row.left else 0
        return replace(row.assignment, steps=steps, probe=probe)

    def _filled(self, places: Sequence[_Row | None]) -> list[_Row]:
        """The rows that go on, with new jobs in the places between and after them."""
        rows: list[_Row] = []
        idle = False
        for place in range(self.places):
            row = places[place] if place < len(places) else None
            if row is None and not idle:
                job = self.stopper.job(self._born)
                idle = job is None
                row = None if job is None else replace(self._known[job.trial], job=job)
            if row is not None:
                rows.append(row)
        return rows

    def _born(self, fork: Fork | None) -> int | None:
        trial = len(self._known)
        if fork is not None:
            parent = self._known[fork.parent]
            point = {**parent.assignment.point, **fork.change}
            row = Assignment(trial, point, Parent(fork.parent), 0, parent.assignment.seed)
            self._known[trial] = _Row(row, parent.at, Job(trial, parent.at))
            return trial
        proposed = self.proposer.propose(len(self._proposed))
        if proposed is None:
            return None
        self._proposed[trial] = len(self._proposed)
        self._open.add(trial)
        row = Assignment(trial, {**proposed, **self.base}, None, 0, trial)
        self._known[trial] = _Row(row, 0, Job(trial, 0))
        return trial

    def _told(self, outcome: Outcome) -> Outcome:
        self._finite = self._finite or outcome.alive
        number = self._proposed.get(outcome.trial)
        if number is None or self.proposer.report(number, outcome.step, outcome.score):
            return outcome
        return replace(outcome, score=math.nan)


def _outcome(row: _Row, result: Result) -> Outcome | None:
    """What came of the row's job, if it is done or the trial has diverged."""
    # a cool-down may hide that the trial itself has diverged
    alive = math.isfinite(result.loss) and math.isfinite(result.score)
    if alive and row.left > 0:
        return None
    return Outcome(row.job.trial, row.at, result.score if alive else math.nan)
