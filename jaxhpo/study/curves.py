"""What is logged of a segment's curves: the dense ones thinned, the rare ones where they are."""

from collections.abc import Mapping

import numpy as np

from jaxhpo.record.log import shortest

CLIPPED = "clipped/"
"""Begin of the names of shares clipped: what is logged of them is the mean since the last point."""

CURVE_POINTS = 50
"""At most so many points of each curve are logged for one segment."""


def every_step(curve: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The part of a segment's measurements that every step has."""
    plain = ("step", "loss", "lr", "grad_norm")
    return {n: values for n, values in curve.items() if n in plain or n.startswith(CLIPPED)}


def diagnosed(curve: Mapping[str, np.ndarray]) -> dict[str, list]:
    """The part that only some steps have, at those steps; `step` is empty where there is none."""
    rest = {name: values for name, values in curve.items() if name not in every_step(curve)}
    made = [np.isfinite(values) for values in rest.values()]
    some = np.any(made, axis=0) if made else np.zeros(len(curve["step"]), bool)
    return thinned({n: values[some] for n, values in ({"step": curve["step"]} | rest).items()})


def thinned(curve: Mapping[str, np.ndarray]) -> dict[str, list]:
    """At most CURVE_POINTS of a segment's points, its last one always among them."""
    count = len(curve["step"])
    stride = -(-count // CURVE_POINTS)
    keep = np.arange((count - 1) % stride, count, stride) if count else np.arange(0)

    def kept(name: str, values: np.ndarray) -> list:
        if name == "step":
            return values[keep].tolist()
        if name.startswith(CLIPPED) and count:
            begins = np.concatenate([[0], keep[:-1] + 1])
            return shortest(np.add.reduceat(values, begins) / (keep + 1 - begins))
        return shortest(values[keep])

    return {name: kept(name, values) for name, values in curve.items()}
