"""A segment as rows of numbers by name, for a mirror."""

import math
from typing import Any

from jaxhpo.record.trackers.protocol import Snapshot


def curve_rows(snapshot: Snapshot, *, prefix: bool) -> list[tuple[int, dict[Any, Any]]]:
    """Curves by step: step -> {"member/007/train_loss": ...}, or {7: {"train_loss": ...}}."""
    rows: dict[int, dict[Any, Any]] = {}
    for trial, curve in snapshot.curves.items():
        for place, step in enumerate(curve.get("step", ())):
            values = {
                "train_loss" if name == "loss" else name: float(column[place])
                for name, column in curve.items()
                if name != "step"
            }
            row = rows.setdefault(int(step), {})
            if prefix:
                row.update({f"member/{trial:03d}/{name}": value for name, value in values.items()})
            else:
                row[trial] = values
    return sorted(rows.items())


def speed(snapshot: Snapshot) -> dict[str, float]:
    """How fast the whole run is; what is not known is left out."""
    names = ("tokens_per_second", "step_seconds", "mfu", "goodput", "memory_bytes")
    found = {name: getattr(snapshot, name) for name in names}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def held_out(snapshot: Snapshot) -> dict[str, Any]:
    """Held-out losses in nats, hyperparameters and parents by member."""
    row: dict[str, Any] = {}
    for result in snapshot.results:
        member = f"member/{result.trial:03d}"
        row[f"{member}/loss"] = result.loss
        for name, value in snapshot.points.get(result.trial, {}).items():
            row[f"{member}/{name}"] = value
    for exploit in snapshot.exploits:
        row[f"member/{exploit.trial:03d}/parent"] = exploit.parent
    return row
