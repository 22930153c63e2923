"""Which checkpoints stay: the newest, the best, and those that are kept for good."""

import math
from collections.abc import Collection, Mapping
from typing import Any

KEEP = "keep"
"""Metadata entry that says why a checkpoint is never deleted, such as `stable-end`."""

LOSS = "loss"
"""Metadata entry with the best held-out loss of a checkpoint's trials, None if none is finite."""


def kept(
    checkpoints: Mapping[int, Mapping[str, Any]],
    last: int,
    best: bool,
    pinned: Collection[int] = (),
) -> set[int]:
    """The indices to keep of checkpoints with their metadata.

    >>> sorted(kept({1: {"keep": "stable-end"}, 2: {"loss": 0.5}, 3: {"loss": 0.7}, 4: {}}, 1, True))
    [1, 2, 4]
    """
    newest = sorted(checkpoints)[-last:]
    for_good = [index for index, about in checkpoints.items() if about.get(KEEP)]
    losses = {index: _finite(about.get(LOSS)) for index, about in checkpoints.items()}
    champion = min(losses, key=lambda index: (losses[index], index), default=None)
    found = {*newest, *for_good, *pinned}
    if best and champion is not None and math.isfinite(losses[champion]):
        found.add(champion)
    return found


def _finite(loss: Any) -> float:
    return loss if isinstance(loss, int | float) and math.isfinite(loss) else math.inf
