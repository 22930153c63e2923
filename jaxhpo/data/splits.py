"""Which records of a prepared data set are trained on, and which are held out."""

import re
from typing import Any

import numpy as np

from jaxhpo.data.config import DataConfig
from jaxhpo.data.prepared import PREFIX, find
from jaxhpo.data.records import Records
from jaxhpo.errors import UsageError

HELD_OUT = {
    "lm1b": "test",  # the published held-out part; there is no other
    "multi_nli": "validation_matched",
}
"""Data set -> the split that is held out, where that is not the first of USUAL that it has."""
USUAL = ("validation", "valid", "dev", "validation_matched")
"""A split named test is left for the end: who ranks on it has nothing left to report."""
TEXTS = ("text", "book_text", "content", "article", "document", "sentence", "description")
"""Columns that are the text, where none is named and there is more than one of text."""

_SPEC = re.compile(r"(\w+)(?:\[(-?\d+%?)?:(-?\d+%?)?\])?")


def parts(source: str, config: DataConfig) -> tuple[Records, Records]:
    """The training and the held-out records of `tfds:NAME` or `tfds:NAME@SPLIT`.

    A validation split is held out where the data set has one (the table says which, or another);
    else the last `data.held_out` of the records that are asked for: no record is in both (a text
    that a data set has twice may be). Raises UsageError for what is not prepared, and for splits
    and columns that are not there.
    """
    name, at, spec = source.partition("@")
    found = find(name, config.tfds_dir)
    info = found.info
    lengths = {split: int(each.num_examples) for split, each in info.splits.items()}
    spec = spec if at else ("train" if "train" in lengths else next(iter(lengths)))
    split, start, stop = _asked(source, spec, lengths)
    column = _column(source, config.column, info.features)
    make = lambda split, start, stop: Records(
        name=found.name,
        folder=str(found.folder),
        split=split,
        start=start,
        stop=stop,
        column=column,
        size=int(info.splits[split].num_bytes) * (stop - start) // max(1, lengths[split]),
    )
    other = HELD_OUT.get(name.removeprefix(PREFIX).partition(":")[0])
    other = other or next((each for each in USUAL if lengths.get(each)), None)
    if lengths.get(other or "") and other != split:
        return make(split, start, stop), make(other, 0, lengths[other])
    held = max(1, round(config.held_out * (stop - start)))
    if held >= stop - start:
        raise UsageError(
            f"data.source={source} has {stop - start} example(s); too few to hold out a part of "
            f"data.held_out={config.held_out}"
        )
    return make(split, start, stop - held), make(split, stop - held, stop)


def _asked(source: str, spec: str, lengths: dict[str, int]) -> tuple[str, int, int]:
    match = _SPEC.fullmatch(spec)
    if match is None:
        raise UsageError(
            f"data.source={source}: {spec} is no split; allowed: NAME or a part of it, such as "
            "train[:5%] or train[1000:]"
        )
    split, low, high = match.groups()
    if split not in lengths:
        raise UsageError(
            f"data.source={source}: there is no split {split}; it has {', '.join(lengths)}"
        )
    size = lengths[split]
    start, stop = _place(low, size, 0), _place(high, size, size)
    if start >= stop:
        raise UsageError(
            f"data.source={source} has no examples: {split} has {size}, and {start} to {stop} are "
            "asked for"
        )
    return split, start, stop


def _place(text: str | None, size: int, default: int) -> int:
    if text is None:
        return default
    place = size * int(text[:-1]) // 100 if text.endswith("%") else int(text)
    return min(max(place + size if place < 0 else place, 0), size)


def _column(source: str, asked: str | None, features: Any) -> str:
    texts = [name for name, each in features.items() if _is_text(each)]
    if asked is not None and asked not in texts:
        raise UsageError(
            f"data.column={asked}: data.source={source} has no such text; it has "
            f"{', '.join(texts) or 'none'}"
        )
    if asked is not None or len(texts) == 1:
        return asked or texts[0]
    found = next((each for each in TEXTS if each in texts), None)
    if found is None:
        shown = f"say with data.column which: {', '.join(texts)}" if texts else ""
        raise UsageError(
            f"data.source={source} has no text to model; "
            + (shown or f"it has {', '.join(features)}")
        )
    return found


def _is_text(feature: Any) -> bool:
    """Is it one string? A label is a number."""
    if getattr(feature, "shape", None) != ():
        return False
    return np.dtype(feature.np_dtype).kind in "OSU"
