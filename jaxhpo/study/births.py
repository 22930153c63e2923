"""Where each trial comes from, as the log states it when the trial is born."""

from collections.abc import Mapping
from typing import Any

from jaxhpo.search.plan import Assignment, Point
from jaxhpo.study.origin import Origin


def birth(
    row: Assignment,
    points: Mapping[int, Point],
    steps: Mapping[int, int],
    origin: Origin | None = None,
) -> dict[str, Any]:
    """A trial's parent, step, reason, the parts it keeps, and what differs from the parent's point.

    `points` and `steps` are those of the trials so far. A fork's first trials have parents in
    another run, which is named, and differ from them in its options too.
    """
    parent = row.parent
    if parent is None:
        return {"trial": row.trial, "parent": None, "step": 0, "reason": "newborn"}
    born = {"trial": row.trial, "parent": parent.trial, "kept": list(row.keep)}
    if origin is not None and parent.trial < len(origin.sources):
        source = origin.sources[parent.trial]
        return {
            **born,
            "run": origin.name,
            "run_id": origin.id,
            "parent": source.trial,
            "step": source.step,
            "reason": f"fork: {origin.preset}",
            "kept": list(origin.kept),
            "reset": list(origin.reset),
            "difference": {
                name: list(pair)
                for table in (origin.difference, origin.changes[row.trial - len(origin.sources)])
                for name, pair in table.items()
            },
        }
    return {
        **born,
        "step": steps.get(parent.trial, 0) if parent.step is None else parent.step,
        "reason": "copy" if parent.step is None else "restore",
        "difference": point_difference(points.get(parent.trial, {}), row.point),
    }


def point_difference(before: Point, after: Point) -> dict[str, list[Any]]:
    """Name -> [before, after] where two points differ; None where one does not have the name."""
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return {name: [before.get(name), after.get(name)] for name in names}
