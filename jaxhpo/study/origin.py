"""Where a forked run comes from and what becomes of it, as its log keeps it. Never imports jax."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from jaxhpo.search.forked import Child, Forked
from jaxhpo.search.plan import Point


@dataclass(frozen=True)
class Taken:
    """A member in a checkpoint: `place` in its population (`population`, "" where there is one)."""

    index: int
    place: int
    population: str
    step: int
    digest: str


@dataclass(frozen=True)
class Source:
    """The state that children start from; several `taken` are averaged with `weights`.

    `windows` is the data position in sequences, `phase` the step on the schedule's own clock, and
    `lr` the rate of the last step before. `line` are the segments that made it.
    """

    trial: int
    step: int
    tokens: int
    windows: int
    phase: int
    seed: int
    lr: float
    loss: float
    point: Point
    taken: tuple[Taken, ...]
    weights: tuple[float, ...]
    line: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Origin:
    """A fork: from which run, what is kept and reset, and every child."""

    preset: str
    run: str
    name: str
    id: str
    kept: tuple[str, ...]
    reset: tuple[str, ...]
    schedule: str
    difference: Mapping[str, tuple[Any, Any]]
    fingerprints: Mapping[str, str]
    """of the parent's data"""
    sources: tuple[Source, ...]
    children: tuple[Child, ...]
    changes: tuple[Mapping[str, tuple[Any, Any]], ...]
    """of each child, the hyperparameters that are not its source's"""
    rates: tuple[float, ...]
    """learning rate of each child's first step"""
    data_shift: int
    """batches that the data position is ahead of the children's step"""
    schedule_shift: int
    """steps that the schedule's clock is behind the children's step"""
    stops: tuple[int, ...] = ()

    @property
    def total_steps(self) -> int:
        """The largest step that a child reaches."""
        return max(child.start + child.steps for child in self.children)

    def scheduler(self, segment: int, stops: Iterable[int] = ()) -> Forked:
        """The scheduler of the children; a lone one's segments end at `stops` too."""
        return Forked(len(self.sources), self.children, segment, (*self.stops, *stops))

    def points_before(self, trial: int) -> tuple[tuple[int, Point], ...]:
        """The points of a child's line before the fork, with the steps from which they held; none
        where its step began anew."""
        child = self.children[trial - len(self.sources)]
        line = self.sources[child.source].line if child.start else ()
        return tuple((segment["begin"], segment["point"]) for segment in line)

    def costs(self) -> dict[str, int]:
        """Steps: of the trunk that is there, of the children, and of separate runs from scratch."""
        return {
            "trunk_steps": max(source.step for source in self.sources),
            "child_steps": sum(child.steps for child in self.children),
            "separate_steps": sum(
                self.sources[child.source].step + child.steps for child in self.children
            ),
        }

    def to_event(self) -> dict[str, Any]:
        """Plain values for the log; `of_event` reads them back."""
        return {**asdict(self), "costs": self.costs(), "total_steps": self.total_steps}

    @classmethod
    def of_event(cls, event: Mapping[str, Any]) -> "Origin":
        names = cls.__dataclass_fields__
        values = {name: event[name] for name in names}
        plain = lambda row, *many: {k: tuple(v) if k in many else v for k, v in row.items()}
        return cls(
            **{
                **values,
                "kept": tuple(event["kept"]),
                "reset": tuple(event["reset"]),
                "difference": _pairs(event["difference"]),
                "changes": tuple(map(_pairs, event["changes"])),
                "sources": tuple(
                    Source(
                        **{
                            **plain(row, "weights", "line"),
                            "taken": tuple(Taken(**taken) for taken in row["taken"]),
                        }
                    )
                    for row in event["sources"]
                ),
                "children": tuple(Child(**plain(row, "keep")) for row in event["children"]),
                "rates": tuple(event["rates"]),
                "stops": tuple(event["stops"]),
            }
        )


def _pairs(table: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {name: tuple(pair) for name, pair in table.items()}


def describe(origin: Origin) -> list[str]:
    """What is said when a fork begins: from where, what is kept, and the rate before and after."""
    rows = [("fork", f"{origin.preset}, of {origin.run}")]
    for source in origin.sources:
        steps = ", ".join(str(taken.step) for taken in source.taken)
        where = f"the average of steps {steps}" if len(source.taken) > 1 else f"step {steps}"
        about = f"{source.tokens:,} tokens, loss {source.loss:.4f}"
        rows.append(("from", f"trial {source.trial} at {where}, {about}"))
    rows.append(("kept", ", ".join(origin.kept)))
    rows.append(("reset", ", ".join(origin.reset) or "nothing"))
    rows.append(("schedule", origin.schedule))
    rows += [("changed", f"{name}: {a} -> {b}") for name, (a, b) in origin.difference.items()]
    rates = {
        (origin.sources[child.source].lr, rate)
        for child, rate in zip(origin.children, origin.rates, strict=True)
    }
    for before, after in sorted(rates):
        rows.append(
            ("rate", f"{before:.4g} at the last step before, {after:.4g} at the first after")
        )
    return [f"{name:<9} {text}" for name, text in rows]
