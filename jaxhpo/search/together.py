"""Several schedulers side by side in one population."""

from collections.abc import Mapping
from dataclasses import replace

from jaxhpo.search.fixed import Fixed
from jaxhpo.search.pbt import Pbt
from jaxhpo.search.plan import Assignment, Extent, Parent, Plan, Point, Report, Scheduler


class Together:
    """Runs every part round by round; each row's `group` is its part's name.

    Trials get ids of their own here, in order of appearance, and are translated back for their
    part; seeds stay those that the part gave, so a part trains exactly as it would alone. A part
    that has ended has no more rows: the population may shrink, and the engine pads it. Parts keep
    in time only if their segments are equally long (`Fixed` takes the ends of another's segments);
    where they are not, rows of a shorter segment wait for the longest. An exception in one part,
    such as Diverged, ends all.
    """

    def __init__(self, parts: Mapping[str, Scheduler]) -> None:
        if not parts:
            raise ValueError("parts: there must be at least one")
        self.parts = dict(parts)
        self._running: list[str] = []
        self._locals: list[tuple[str, int]] = []  # by global id: the part and its own id
        self._globals: dict[tuple[str, int], int] = {}

    @property
    def extent(self) -> Extent:
        parts = [part.extent for part in self.parts.values()]
        total = lambda name: sum(getattr(part, name) for part in parts)
        most = lambda name: max(getattr(part, name) for part in parts)
        # parts out of step start from steps of their own
        same = len({part.steps for part in parts}) == 1
        return Extent(
            rows=total("rows"),
            held=total("held"),
            steps=most("steps"),
            trained=total("trained"),
            probe=most("probe"),
            probed=total("probed"),
            starts=most("starts") if same else total("starts"),
        )

    @property
    def foreseen(self) -> tuple[Point, ...] | None:
        known = [part.foreseen for part in self.parts.values()]
        if any(points is None for points in known):
            return None
        return tuple(point for points in known for point in points or ())

    def first(self) -> Plan:
        self._locals, self._globals = [], {}
        plans = {name: part.first() for name, part in self.parts.items()}
        self._running = list(plans)
        return self._joined(plans)

    def next(self, report: Report) -> Plan | None:
        reports: dict[str, list] = {name: [] for name in self._running}
        for result in report:
            if not 0 <= result.trial < len(self._locals):
                raise ValueError(f"a report on trial {result.trial}, which was never planned")
            name, trial = self._locals[result.trial]
            reports.setdefault(name, []).append(replace(result, trial=trial))
        plans = {name: self.parts[name].next(tuple(part)) for name, part in reports.items()}
        going = {name: plan for name, plan in plans.items() if plan is not None}
        self._running = list(going)
        return self._joined(going) if going else None

    def _joined(self, plans: Mapping[str, Plan]) -> Plan:
        rows = [(name, row) for name, plan in plans.items() for row in plan.assignments]
        paused = [self._global(name, trial) for name, p in plans.items() for trial in p.paused]
        return Plan(tuple(self._translated(name, row) for name, row in rows), tuple(paused))

    def _translated(self, name: str, row: Assignment) -> Assignment:
        parent = row.parent
        if parent is not None:
            parent = Parent(self._global(name, parent.trial), parent.step)
        return replace(row, trial=self._global(name, row.trial), parent=parent, group=name)

    def _global(self, name: str, trial: int) -> int:
        if (name, trial) not in self._globals:
            self._globals[name, trial] = len(self._locals)
            self._locals.append((name, trial))
        return self._globals[name, trial]


def beside_fixed(pbt: Pbt) -> Together:
    """PBT (group "pbt"), and its initial points and seeds held fixed (group "fixed")."""
    return Together({"pbt": pbt, "fixed": Fixed(pbt.initial, pbt.steps, pbt.ends)})
