"""Files for a peer: the tokens, windows and points that our side trains on."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxhpo.data.corpus import open_corpus


def points_of(job: Any) -> Sequence[dict]:
    """The initial points of a population-based job."""
    from jaxhpo.config import is_static, searchable_names
    from jaxhpo.search.pbt import Pbt
    from jaxhpo.search.space import Space

    space = Space.from_mapping(job.space, is_static, searchable_names(job))
    return Pbt(space, job.pbt, job.steps, job.seed).initial


def named(points: Sequence[dict]) -> list[dict]:
    """Points under the peer's names: the last part of each dotted one."""
    return [{name.split(".")[1]: value for name, value in point.items()} for point in points]


def peer_arguments(place: Path, job: Any, points: list[dict]) -> list[str]:
    """Writes the peer's files into `place`, cut from what our side trains on; its arguments."""
    corpus = open_corpus(job.data, job.model.context, job.seed)
    batch, steps = job.data.batch_size, job.steps
    windows = corpus.train.window_at(np.arange(steps * batch).reshape(steps, batch))
    # held-out windows as a stream of their own: each is context + 1 tokens long
    held_out = corpus.held_out["tokens"]
    count, _, width = held_out.shape
    dtype = np.uint8 if corpus.vocab_size <= 256 else np.uint16
    arrays = {
        "train": np.asarray(corpus.train.stream).astype(dtype),
        "held-out": held_out.reshape(-1).astype(dtype),
        "windows": windows.astype(np.int64),
        "held-out-windows": np.arange(count * batch, dtype=np.int64).reshape(count, batch) * width,
    }
    arguments = ["--vocab", str(corpus.vocab_size), "--points", str(place / "points.json")]
    for name, array in arrays.items():
        np.save(place / f"{name}.npy", array)
        arguments += [f"--{name}", str(place / f"{name}.npy")]
    (place / "points.json").write_text(json.dumps(points))
    return arguments
