"""The family of several runs: every trial, whom it descends from in whichever run, and its losses.

Pure functions from histories; a parent is found by the identity of its run, not by a path.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxhpo.errors import UsageError
from jaxhpo.record.lineage import run_id
from jaxhpo.report.lineage import number, score_order

Key = tuple[str, int]
"""Identity of a run, and a trial."""


@dataclass(frozen=True)
class Relative:
    """One trial of one run. Steps are those of its model, its ancestors' included.

    `parent` is None of a newborn, and of a fork whose parent's run was not given: then `missing`
    names it. `losses` are (step, held-out loss) from the one it was born with on.
    """

    key: Key
    run: str
    trial: int
    parent: Key | None
    missing: str
    reason: str
    difference: Mapping[str, Sequence[Any]]
    begin: int
    shift: int
    """how much further its steps are drawn than it counts them: zero unless it began anew"""
    losses: tuple[tuple[int, float], ...]

    @property
    def end(self) -> int:
        return self.losses[-1][0] if self.losses else self.begin

    @property
    def loss(self) -> float:
        return self.losses[-1][1] if self.losses else float("nan")


Family = dict[Key, Relative]


def family(histories: Iterable[Any]) -> Family:
    """The trials of all runs, parents before children. Raises UsageError for a run given twice."""
    found: Family = {}
    for history in _parents_first([(run_id(history), history) for history in histories]):
        _add(found, history)
    return found


def children(relatives: Family) -> dict[Key | None, list[Relative]]:
    """Relatives by parent, None for the roots: in the order in which they were born."""
    found: dict[Key | None, list[Relative]] = {}
    for each in relatives.values():
        found.setdefault(each.parent, []).append(each)
    for rows in found.values():
        rows.sort(key=lambda each: (each.begin, each.run, each.trial))
    return found


def in_order(relatives: Family, latest_first: bool = False) -> list[tuple[int, Relative]]:
    """Depth and relative, each followed by its descendants, earlier forks first or later ones."""
    below = children(relatives)
    if latest_first:
        for rows in below.values():
            rows.sort(key=lambda each: -each.begin)
    rows: list[tuple[int, Relative]] = []
    stack = [(0, each) for each in reversed(below.get(None, []))]
    while stack:
        depth, each = stack.pop()
        rows.append((depth, each))
        stack += [(depth + 1, child) for child in reversed(below.get(each.key, []))]
    return rows


def best(relatives: Family) -> Relative:
    """The lowest last loss of all."""
    return min(relatives.values(), key=lambda each: score_order(each.loss))


def _parents_first(runs: Sequence[tuple[str, Any]]) -> list[Any]:
    ordered, rest = [], {}
    for identity, history in runs:
        if identity in rest:
            twice = rest[identity].path.parent
            raise UsageError(f"{twice} and {history.path.parent} are the same run; give it once")
        rest[identity] = history
    while rest:
        ready = [i for i, h in rest.items() if not (h.fork and h.fork["id"] in rest)]
        for identity in ready or list(rest):
            ordered.append(rest.pop(identity))
    return ordered


def _add(found: Family, history: Any) -> None:
    identity, name = run_id(history), history.path.parent.name
    births, points = history.births, _losses(history)
    for plan in history.plans:
        for row in plan["assignments"]:
            key = (identity, row["trial"])
            if key in found or row["trial"] not in points:
                continue
            parent, missing, at = _parent(found, history, identity, row)
            born = births.get(row["trial"], {})
            own = points[row["trial"]]
            first = own[0][0] - row["steps"]
            begin = at if parent is not None else first
            shift = begin - first  # a fork that counts anew is drawn where its parent was left
            inherited = _loss_at(found[parent], begin) if parent is not None else ()
            found[key] = Relative(
                key=key,
                run=name,
                trial=row["trial"],
                parent=parent,
                missing=missing,
                reason=born.get("reason") or ("newborn" if row["parent"] is None else "copy"),
                difference=born.get("difference", {}),
                begin=begin,
                shift=shift,
                losses=(*inherited, *((step + shift, loss) for step, loss in own)),
            )


def _parent(
    found: Family, history: Any, identity: str, row: Mapping[str, Any]
) -> tuple[Key | None, str, int]:
    """The parent's key, or the name of its run where that was not given; and the step left at."""
    if row["parent"] is None:
        return None, "", 0
    trial = row["parent"]["trial"]
    fork = history.fork
    if fork and trial < len(fork["sources"]):
        source = fork["sources"][trial]
        key = (fork["id"], source["trial"])
        if key not in found:
            return None, fork["name"], source["step"]
        return key, "", source["step"] + found[key].shift
    key = (identity, trial)
    if key not in found:
        return None, "", 0
    if row["parent"].get("step") is not None:
        return key, "", row["parent"]["step"] + found[key].shift
    if "step" not in row["keep"]:
        return key, "", found[key].end
    return key, "", _losses(history)[row["trial"]][0][0] - row["steps"] + found[key].shift


def _loss_at(relative: Relative, step: int) -> tuple[tuple[int, float], ...]:
    """The loss that a relative had at a step, in a tuple of one; empty where none is known."""
    return tuple(row for row in relative.losses if row[0] == step)[:1]


def _losses(history: Any) -> dict[int, list[tuple[int, float]]]:
    found: dict[int, list[tuple[int, float]]] = {}
    for report in history.reports:
        for row in report["results"]:
            found.setdefault(row["trial"], []).append((int(row["step"]), number(row["loss"])))
    return found
