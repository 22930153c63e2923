"""A toy engine on the host, which checks every plan that it is given."""

import itertools
import math
from collections.abc import Callable, Sequence

from jaxhpo.search import Assignment, Plan, Report, Result, Scheduler, Space

TEXTS = {
    "lr": "log(1e-4, 1e-1)",
    "dropout": "uniform(0, 0.3)",
    "warmup": "int(1, 40)",
    "kind": "choice(cosine, wsd, 3)",
}
SPACE = Space.from_mapping(TEXTS, lambda name: False, list(TEXTS))
STEPS = 230

Loss = Callable[[Assignment, int], float]


class ToyEngine:
    """Keeps each trial's step and checks every plan; trials 5, 12, ... diverge. Never all do."""

    def __init__(self, noise: int = 0, steps: int = STEPS, space: Space | None = SPACE) -> None:
        self.steps: dict[int, int] = {}
        self.held: frozenset[int] = frozenset()
        self.noise, self.most, self.space = noise, steps, space

    def run(self, plan: Plan) -> Report:
        rows = plan.assignments
        trials = [row.trial for row in rows]
        assert rows and len(set(trials)) == len(trials), "a trial has one place"
        assert not set(plan.paused) & set(trials), "a trial trains or is paused"
        assert set(plan.paused) <= self.held, "what is paused is still there"
        before, report = dict(self.steps), []
        for row in rows:
            if row.parent is None or row.parent.trial != row.trial:
                assert row.trial not in before, "a new life has a new id"
            if row.parent is not None:
                assert row.parent.trial in self.held, "the parent's state is still there"
            start = before[row.parent.trial] if row.parent is not None else 0
            assert row.steps >= 1 and row.probe >= 0
            self.steps[row.trial] = start + row.steps
            assert self.steps[row.trial] <= self.most, "within the budget"
            self.check(row.point)
            report.append(self.result(row))
        self.held = frozenset((*trials, *plan.paused))
        return tuple(report)

    def check(self, point) -> None:
        if self.space is not None:
            names = self.space.names
            self.space.check({k: v for k, v in point.items() if k in names})

    def result(self, row: Assignment) -> Result:
        step = self.steps[row.trial]
        if row.trial % 7 == 5:
            return Result(row.trial, step, math.nan, math.nan, (math.nan,) * 4)
        best = -3 + (self.noise % 3) / 2
        loss = abs(math.log10(row.point["lr"]) - best) + row.point["dropout"] + 10 / step
        wobble = ((row.seed * 7919 + step + self.noise) % 13) / 100
        samples = tuple(loss + wobble * i for i in range(4))
        return Result(row.trial, step, sum(samples) / 4, sum(samples) / 4, samples)


class Scored(ToyEngine):
    """Losses from a function of row and step; nothing diverges by itself."""

    def __init__(self, loss: Loss, steps: int) -> None:
        super().__init__(steps=steps, space=None)
        self.loss = loss

    def result(self, row: Assignment) -> Result:
        step = self.steps[row.trial]
        loss = self.loss(row, step)
        return Result(row.trial, step, loss, loss, (loss,))


def drive(
    scheduler: Scheduler,
    log: Sequence[tuple[Plan, Report]] = (),
    noise: int = 0,
    engine: ToyEngine | None = None,
) -> list[tuple[Plan, Report]]:
    """The whole history; a log is replayed first, as a resumed run does."""
    engine = ToyEngine(noise) if engine is None else engine
    history, plan = [], scheduler.first()
    for round_ in itertools.count():
        assert round_ < 2000, "it ends"
        report = engine.run(plan)
        if round_ < len(log):
            assert (plan, report) == log[round_], "the log and the replay differ"
        history.append((plan, report))
        plan = scheduler.next(report)
        if plan is None:
            return history
    raise AssertionError
