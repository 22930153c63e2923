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

    >>> sorted(kept({1: {"keep": "stable-end"}, 2: {"loss": 0.5}, 3: {}, 4: {}}, 1, True))
    [1, 2, 4]
    """
    newest = sorted(checkpoints)[-last:]
    for_good = [index for index, about in checkpoints.items() if about.get(KEEP)]
    losses = {i: about[LOSS] for i, about in checkpoints.items() if finite(about.get(LOSS))}
    champions = sorted(losses, key=lambda index: (losses[index], index))[:1] if best else ()
    return {*newest, *for_good, *pinned, *champions}


def finite(loss: Any) -> bool:
    """Is this a number that a model reached?"""
    return isinstance(loss, int | float) and math.isfinite(loss)
