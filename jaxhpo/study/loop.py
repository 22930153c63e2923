"""The loop that joins a scheduler, the engine, the data and the record."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from jaxhpo.errors import Diverged, Interrupted
from jaxhpo.population.member import METRICS
from jaxhpo.population.rows import named
from jaxhpo.population.transfer import fetch
from jaxhpo.search.plan import Plan, Report, Result, Scheduler
from jaxhpo.study.compile_group import CompileGroup, Trained, label
from jaxhpo.study.groups import Groups
from jaxhpo.study.hosts import Hosts
from jaxhpo.study.judging import Judge
from jaxhpo.study.places import Places
from jaxhpo.study.recorder import Spent
from jaxhpo.study.watchdog import Watchdog

Curves = dict[int, dict[str, np.ndarray]]


@dataclass
class Study:
    """One search in progress. Everything it remembers is in the log, or a function of it.

    `results` are the newest of all trials so far, with the groups that their plans named.
    """

    scheduler: Scheduler
    groups: Groups
    recorder: Any
    index: int = 0
    results: dict[int, tuple[Result, str]] = field(default_factory=dict)
    kept: tuple[int, int] | None = None
    """trial and step whose parameters were saved before its place was given away"""
    judge: Judge = field(default_factory=Judge)
    """what a trial is measured by"""
    restoring: float = 0.0
    """seconds of this segment that went to reading checkpoints"""

    hosts: Hosts = field(default_factory=Hosts)
    """the processes that carry out the search together"""
    watchdog: Watchdog | None = None

    def run(self, plan: Plan | None, stop_requested: Callable[[], str | None]) -> None:
        """Carries out plans until there is none.

        Raises Interrupted after saving when asked to stop, Diverged when no member is finite.
        """
        self.agree(plan, None)
        while plan is not None:
            with self.watchdog.segment(_length(plan)) if self.watchdog else nullcontext():
                report = self.step(plan)
            try:
                plan = self.scheduler.next(report)
            except Diverged:
                self.recorder.stopped("diverged", self.index)
                raise
            self.keep_best(plan)
            reason, due = self.agree(plan, stop_requested())
            state, metadata = self.groups.state(), self.groups.metadata()
            last = plan is None or reason
            self.recorder.save(self.index, state, metadata, last=last, due=due)
            if reason and plan is not None:
                self.recorder.stopped(reason, self.index)
                raise Interrupted(f"jaxhpo resume {self.recorder.store.root.parent}")
            self.index += 1

    def agree(self, plan: Plan | None, reason: str | None) -> tuple[str | None, bool | None]:
        """Raises UsageError where processes would not do the same next: plan, or rows of it.

        Returns why all are to stop, if any was asked to, and whether process 0 finds a save due
        (None where there is one process: it will see).
        """
        if not self.hosts.several:
            return reason, None
        told = self.hosts.same("the next plan", self._next(plan), (reason, self.recorder.due()))
        return next((asked for asked, _ in told if asked), None), told[0][1]

    def _next(self, plan: Plan | None) -> dict[str, Any]:
        """What a plan says, and the numbers that the device gets for it."""
        if plan is None:
            return {"plan": None}
        rows = {
            label(group.statics): named(group.host_rows(part))
            for group, part in self.groups.parts(plan)
            if part.assignments
        }
        assignments = {row.trial: dataclasses.asdict(row) for row in plan.assignments}
        return {"assignments": assignments, "paused": plan.paused, "rows": rows}

    def step(self, plan: Plan) -> Report:
        """One segment: the plan goes to the log, to the device, and comes back as a report."""
        self.recorder.planned(self.index, plan)
        parts = self.groups.parts(plan)  # which may have to be compiled first
        begin, self.restoring = time.perf_counter(), 0.0
        found, drawn, spent = {}, {}, Spent()
        for group, part in parts:
            if not part.assignments:
                group.rest(part)
                continue
            results, curves, cost = self.train(group, part)
            found |= results
            drawn |= curves
            spent += cost
        for trial, reason in self.groups.infeasible(plan).items():
            self.recorder.infeasible(self.index, trial, reason)
            found[trial] = self.failed(plan, trial)
            drawn[trial] = {name: np.zeros(0) for name in ("step", *METRICS)}
        report = tuple(found[row.trial] for row in plan.assignments)
        seconds = time.perf_counter() - begin - self.restoring
        self.recorder.reported(self.index, plan, report, drawn, seconds, spent)
        self.remember(plan, report)
        return report

    def train(self, group: CompileGroup, plan: Plan) -> tuple[dict[int, Result], Curves, Spent]:
        """A group's part of a segment, fetched from the device."""
        starts = group.places.starts(plan)
        self.hosts.in_flight = True
        trained = group.run(plan, self.older)
        # who waits in a collective can't say for whom: so all meet before it
        self.hosts.meet("the results of a segment")
        trained = Trained(*fetch((trained.metrics, trained.raw, trained.scores)))
        self.hosts.in_flight = False
        made = sum(row.steps for row in plan.assignments)
        probed = sum(row.probe for row in plan.assignments)
        each = group.tokens_per_step
        idle = group.lane_steps(plan, group.places) - made
        return (
            results(plan, group.places, trained.raw, trained.scores, self.judge),
            curves(plan, group.places, starts, trained.metrics),
            Spent(made * each, probed * each, idle, (made + probed) * group.flops_per_step),
        )

    def remember(self, plan: Plan, report: Report) -> None:
        """Notes the newest results: for the best trial, and for steps of infeasible ones."""
        for row, result in zip(plan.assignments, report, strict=True):
            self.results[row.trial] = (result, row.group)

    def failed(self, plan: Plan, trial: int) -> Result:
        """The result of a trial that cannot be trained."""
        row = next(row for row in plan.assignments if row.trial == trial)
        start = self.results[trial][0].step if row.carries_on and trial in self.results else 0
        return Result(trial, start + row.steps, float("nan"), float("nan"))

    def keep_best(self, plan: Plan | None) -> None:
        """Saves the best trial's parameters where the next plan gives its place away."""
        best = self.judge.best_of(self.results)
        if plan is None or (best.trial, best.step) == self.kept:
            return
        group = self.groups.holding(best.trial)
        if group is None or best.trial in {*plan.paused, *(r.trial for r in plan.assignments)}:
            return
        self.recorder.keep(self.index, best, group.params_of(best.trial))
        self.kept = (best.trial, best.step)

    def older(self, trial: int, step: int) -> Any:
        """A member as it was at a step, from a checkpoint of this run. Raises UsageError."""
        begin = time.perf_counter()
        member = self.recorder.older(self.groups, trial, step)
        self.restoring += time.perf_counter() - begin
        return member


def _length(plan: Plan) -> int:
    """Steps of the longest row, its probe included: what a segment's time goes with."""
    return max((row.steps + row.probe for row in plan.assignments), default=0)


def results(plan: Plan, places: Places, raw: Any, scores: Any, judge: Judge) -> dict[int, Result]:
    """Results by trial from losses f32[P, E], or from what the task examines."""
    found = {}
    for row in plan.assignments:
        place = places.trials.index(row.trial)
        of = lambda tree, place=place: jax.tree.map(lambda x: x[place], tree)
        found[row.trial] = judge.result(row.trial, places.steps[place], of(raw), of(scores))
    return found


def curves(
    plan: Plan, places: Places, starts: Sequence[int], metrics: Mapping[str, np.ndarray]
) -> Curves:
    """Per trial, the steps made in this segment and what was measured of them."""
    drawn = {}
    for row, start in zip(plan.assignments, starts, strict=True):
        place = places.trials.index(row.trial)
        steps = {"step": np.arange(start, start + row.steps)}
        measured = {name: values[place, : row.steps] for name, values in metrics.items()}
        drawn[row.trial] = steps | measured
    return drawn
