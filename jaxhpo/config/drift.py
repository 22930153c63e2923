"""What differs between two configs, and whether a run may be carried on in spite of it."""

from typing import TYPE_CHECKING, Any, Literal

from jaxhpo.config.fields import flatten
from jaxhpo.errors import UsageError

if TYPE_CHECKING:
    from jaxhpo.config.run import Run

CLASSES: dict[str, Literal["semantic", "runtime"]] = {
    "steps": "semantic",
    "seed": "semantic",
    "out": "runtime",
    "resume": "runtime",
    "model": "semantic",
    "dropout": "semantic",
    "loss": "semantic",
    "schedule": "semantic",
    "optimizer": "semantic",
    "data": "semantic",
    "data.cache": "runtime",
    "data.workers": "runtime",
    "execution": "runtime",
    "execution.accumulate": "semantic",
    "distributed": "runtime",
    "checkpoint": "runtime",
    "tracker": "runtime",
    "space": "semantic",
    "pbt": "semantic",
    "search": "semantic",
    "search.storage": "runtime",
    "search.heartbeat": "runtime",
    "base": "semantic",
    "task": "semantic",
    "metric": "semantic",
    "epochs": "semantic",
    "epoch_examples": "semantic",
    "seeds": "semantic",
    "head": "semantic",
    "adapter": "semantic",
    "examples": "semantic",
    "data.tfds_dir": "runtime",
    "schedule_from": "semantic",
    "run": "semantic",
    "at": "semantic",
    "trial": "semantic",
    "preset": "semantic",
    "decay": "semantic",
    "shape": "semantic",
    "keep": "semantic",
    "reset": "semantic",
    "average": "semantic",
    "ema": "semantic",
}
"""Name or section -> does it change what is computed (semantic), or where and how (runtime)?"""


class _Absent:
    def __repr__(self) -> str:
        return "absent"


ABSENT = _Absent()
"""The value of a name that the other config does not have."""


def class_of(name: str) -> Literal["semantic", "runtime"]:
    """The class of a dotted name: that of its longest classed part. Raises KeyError without one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        if (found := CLASSES.get(".".join(parts[:length]))) is not None:
            return found
    raise KeyError(name)


def difference(a: "Run", b: "Run") -> list[tuple[str, Any, Any]]:
    """`(dotted name, value in a, value in b)` wherever two configs differ, in the fields' order."""
    left, right = flatten(a), flatten(b)
    both = {name: (left.get(name, ABSENT), right.get(name, ABSENT)) for name in left | right}
    return [(name, x, y) for name, (x, y) in both.items() if x != y]


def refuse_drift(before: "Run", now: "Run") -> None:
    """Raises UsageError naming the fields that differ and that a resumed run must keep."""
    if before.command != now.command:
        raise UsageError(
            f"the run was started by {before.command}, not {now.command}; start a new one"
        )
    changed = [row for row in difference(before, now) if class_of(row[0]) == "semantic"]
    if changed:
        rows = "; ".join(f"{name} was {old!r}, now {new!r}" for name, old, new in changed)
        raise UsageError(f"a resumed run keeps its config, but {rows}; undo it or start a new run")
