"""The compile groups of a run, and which of them a plan means."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from jaxhpo.errors import UsageError
from jaxhpo.search.plan import Assignment, Plan, Point
from jaxhpo.study.compile_group import CompileGroup, Statics, label, statics_of
from jaxhpo.study.kept import populations

MOST_COMPILERS = 8
"""Programs compiled at once; each takes memory while it is."""


class Groups:
    """The compile groups of a run by the static values of its points, opened when needed.

    `open_group(statics)` raises UsageError where a model refuses the values; a trial with such
    values, or with traced ones that its group refuses, is infeasible, and `reason` says why.
    """

    def __init__(
        self, open_group: Callable[[Statics], CompileGroup], static: Sequence[str] = ()
    ) -> None:
        self.static, self._open = tuple(static), open_group
        self.on_open: Callable[[CompileGroup], None] = lambda group: None
        self.opened: dict[Statics, CompileGroup] = {}
        self._refused: dict[Any, str] = {}
        self._allowed: set[Any] = set()

    @classmethod
    def of_one(cls, group: CompileGroup) -> "Groups":
        """The groups of a run whose trials differ in traced values only."""
        groups = cls(lambda _: group)
        groups.opened[()] = group
        return groups

    def statics(self, point: Point) -> Statics:
        return statics_of(point, self.static)

    def of(self, point: Point) -> CompileGroup | None:
        """The group of a point, opened if it is not; None where its values are refused."""
        statics = self.statics(point)
        if statics not in self.opened and statics not in self._refused:
            try:
                group = self._open(statics)
            except UsageError as error:
                self._refused[statics] = str(error)
                return None
            group.example = point
            self.opened[statics] = group
            self.on_open(group)
        return self.opened.get(statics) if self._takes(statics, point) else None

    def _takes(self, statics: Statics, point: Point) -> bool:
        """Whether a group allows a point's traced values; each point is looked at once."""
        values = tuple(point.items())
        if statics in self.opened and values not in self._allowed and values not in self._refused:
            try:
                self.opened[statics].lower([point])
                self._allowed.add(values)
            except UsageError as error:
                self._refused[values] = str(error)
        return values in self._allowed

    def reason(self, point: Point) -> str | None:
        """Why a point is infeasible; None where it is not."""
        self.of(point)
        return self._refused.get(self.statics(point)) or self._refused.get(tuple(point.items()))

    def parts(self, plan: Plan) -> list[tuple[CompileGroup, Plan]]:
        """Every group with its part of a plan, in the order in which groups were opened."""
        rows: dict[Statics, list[Assignment]] = {}
        for row in plan.assignments:
            if self.of(row.point) is not None:
                rows.setdefault(self.statics(row.point), []).append(row)
        self._check_parents(rows)
        return [
            (
                group,
                Plan(
                    tuple(rows.get(statics, ())),
                    tuple(trial for trial in plan.paused if trial in group.places.trials),
                ),
            )
            for statics, group in self.opened.items()
        ]

    def _check_parents(self, rows: Mapping[Statics, Sequence[Assignment]]) -> None:
        for statics, part in rows.items():
            for row in part:
                if row.parent is None:
                    continue
                home = self.holding(row.parent.trial)
                if home is not None and home is not self.opened[statics]:
                    raise ValueError(
                        f"trial {row.trial} ({label(statics)}) can't start from trial "
                        f"{row.parent.trial}, which has other shapes ({label(home.statics)})"
                    )

    def infeasible(self, plan: Plan) -> dict[int, str]:
        """Trials of a plan whose values are refused, with the reasons."""
        reasons = {row.trial: self.reason(row.point) for row in plan.assignments}
        return {trial: reason for trial, reason in reasons.items() if reason is not None}

    def follow(self, plan: Plan) -> None:
        """Moves the trials as a plan says, without a device: for replaying a log."""
        for group, part in self.parts(plan):
            group.places = group.after(part)

    def expected(self, plan: Plan | None) -> tuple[CompileGroup, ...]:
        """The groups to compile before the first segment: those opened, and those of its plan."""
        for row in () if plan is None else plan.assignments:
            self.of(row.point)
        return () if plan is None else tuple(self.opened.values())

    def holding(self, trial: int) -> CompileGroup | None:
        """The group in which a trial has a place now."""
        return next((g for g in self.opened.values() if trial in g.places.trials), None)

    def step(self) -> int:
        """The largest step that a trial has reached."""
        return max((max(g.places.steps, default=0) for g in self.opened.values()), default=0)

    # what a checkpoint holds

    def state(self) -> Any:
        """The populations to save: one alone where nothing static is searched, else by name."""
        if not self.static:
            return self.opened[()].population
        held = {label(s): g.population for s, g in self.opened.items() if g.population is not None}
        return dict(sorted(held.items()))

    def abstract(self) -> Any:
        """`state` as shapes and shardings, for the places as they are now."""
        like = lambda group: group.abstract(len(group.places.trials))
        if not self.static:
            return like(self.opened[()])
        held = {label(s): like(g) for s, g in self.opened.items() if g.places.trials}
        return dict(sorted(held.items()))

    def home(self, name: str, metadata: Mapping[str, Any]) -> CompileGroup:
        """The group of one of a checkpoint's populations ("": the only one), opened if it is not.

        Raises UsageError where this config refuses it.
        """
        if not name:
            return self.opened[()]
        group = self.of(dict(metadata["groups"][name]["statics"]))
        if group is None:
            raise UsageError(f"the checkpoint has {name}, which this config refuses")
        return group

    def taken(self, metadata: Mapping[str, Any]) -> dict[str, tuple[int, ...]] | None:
        """By population, the row of a checkpoint that each place takes; a free place takes any.

        None where every place has its own row: another mesh may have another order and number.
        """
        rows, moved = {}, False
        for name, trials, _ in populations(metadata):
            now, before = self.home(name, metadata).places.trials, list(trials)
            moved = moved or list(now) != before
            rows[name] = tuple(0 if trial is None else before.index(trial) for trial in now)
        return rows if moved else None

    def load(self, state: Any) -> None:
        """Puts back what a checkpoint holds."""
        for statics, group in self.opened.items():
            group.population = state.get(label(statics)) if self.static else state

    def metadata(self) -> dict[str, Any]:
        """Who lives where, beside a checkpoint."""
        of = lambda group: {
            "trials": list(group.places.trials),
            "steps": list(group.places.steps),
        }
        if not self.static:
            return of(self.opened[()])
        held = [group for group in self.opened.values() if group.places.trials]
        named = lambda group: {"statics": [list(pair) for pair in group.statics], **of(group)}
        return {"groups": {label(group.statics): named(group) for group in held}}


def compile_all(groups: Sequence[CompileGroup], report: Callable[[str, float], None]) -> None:
    """Compiles what groups will call, side by side: XLA frees the interpreter while it works."""
    jobs = [job for group in groups for job in group.jobs()]
    if not jobs:
        return
    with ThreadPoolExecutor(min(len(jobs), MOST_COMPILERS)) as pool:
        for future in [pool.submit(job.compile) for job in jobs]:
            report(*future.result())
