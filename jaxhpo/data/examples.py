"""Examples of a supervised task: read from a file, a folder or a prepared data set, and split."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxhpo.data import prepared
from jaxhpo.data.columns import Columns, Kind, find_columns, text_of
from jaxhpo.data.config import DataConfig, ExamplesConfig
from jaxhpo.data.tables import READERS, Row, Table, read_table
from jaxhpo.errors import UsageError

TRAIN, HELD_OUT = ("train", "training"), ("dev", "valid", "validation", "val", "test")
"""Names of files in a folder, without their ending."""

MOST_CLASSES = 1000


@dataclass(frozen=True, eq=False)
class Examples:
    """Texts [N] with `pairs` [N] or none; `labels` are classes i32[N], numbers f32[N], or answers.

    `fingerprint` is sha256 of all of it, in order.
    """

    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None
    labels: np.ndarray | tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        columns = [self.texts, *([] if self.pairs is None else [self.pairs])]
        columns += [self.labels if isinstance(self.labels, tuple) else self.labels.tolist()]
        for column in columns:
            for value in column:
                raw = str(value).encode()
                digest.update(len(raw).to_bytes(8, "little"))
                digest.update(raw)
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Parts:
    """The training and the held-out examples, and the names of the classes (none: no classes)."""

    train: Examples
    held_out: Examples
    classes: tuple[str, ...] = ()


def read_examples(data: DataConfig, examples: ExamplesConfig, kind: Kind) -> Parts:
    """Raises UsageError for a source that can't be used, naming file and line of what is wrong."""
    train, held_out = _tables(data, examples)
    columns = find_columns(train, kind, examples)
    if held_out is None:
        train, held_out = _split(train, columns, data.held_out)
        others = columns
    else:
        others = find_columns(held_out, kind, examples)
    if kind == "instructions":
        return Parts(_instructions(train, columns), _instructions(held_out, others))
    if kind == "regression":
        return Parts(_numbered(train, columns), _numbered(held_out, others))
    classes = examples.classes or _found(train, columns)
    return Parts(
        _classed(train, columns, classes), _classed(held_out, others, classes), tuple(classes)
    )


def _tables(data: DataConfig, examples: ExamplesConfig) -> tuple[Table, Table | None]:
    if data.source.startswith(prepared.PREFIX):
        found = prepared.find(data.source, data.tfds_dir)
        splits = found.splits()
        train = "train" if "train" in splits else splits[0]
        rest = [each for each in prepared.HELD_OUT if each in splits and each != train]
        wanted = examples.held_out or (rest[0] if rest else None)
        return found.table(train), None if wanted is None else found.table(wanted)
    path = Path(data.source).expanduser()
    if path.is_dir():
        path = _named(path, TRAIN) or path
        if path.is_dir():
            kinds = ", ".join(f"train{ending}" for ending in sorted(READERS))
            raise UsageError(f"data.source={path} has no training part; allowed: {kinds} in it")
    elif not path.is_file():
        raise UsageError(
            f"data.source={data.source} is neither a file nor a folder; allowed: a "
            f"{', '.join(sorted(READERS))} file, a folder with train and dev, or tfds:NAME"
        )
    beside = _named(path.parent, HELD_OUT) if path.stem.lower() in TRAIN else None
    wanted = beside if examples.held_out is None else Path(examples.held_out).expanduser()
    return read_table(path), None if wanted is None else read_table(wanted)


def _named(folder: Path, names: Sequence[str]) -> Path | None:
    paths = (folder / f"{name}{ending}" for name in names for ending in sorted(READERS))
    return next((path for path in paths if path.is_file()), None)


def _split(table: Table, columns: Columns, share: float) -> tuple[Table, Table]:
    """An example's side depends on its text alone: one that is there twice is never on both."""
    ranks = [_rank(row, columns) for row in table.rows]
    bound = sorted(set(ranks))[max(1, round(share * len(set(ranks)))) - 1]
    held_out = tuple(row for row, rank in zip(table.rows, ranks, strict=True) if rank <= bound)
    train = tuple(row for row, rank in zip(table.rows, ranks, strict=True) if rank > bound)
    if not train:
        raise UsageError(
            f"{table.name} has {len(table.rows)} example(s); too few to hold out a part of "
            f"data.held_out={share}"
        )
    named = lambda part, rows: Table(f"{table.name} ({part})", table.columns, rows)
    return named("training part", train), named("held-out part", held_out)


def _rank(row: Row, columns: Columns) -> bytes:
    names = [columns.text, *([] if columns.pair is None else [columns.pair])]
    texts = "\0".join(text_of(row, name) for name in names)
    return hashlib.sha256(b"jaxhpo:" + texts.encode(errors="surrogatepass")).digest()


def _texts(table: Table, columns: Columns) -> tuple[tuple[str, ...], tuple[str, ...] | None]:
    texts = tuple(text_of(row, columns.text) for row in table.rows)
    if columns.pair is None:
        return texts, None
    return texts, tuple(text_of(row, columns.pair) for row in table.rows)


def _instructions(table: Table, columns: Columns) -> Examples:
    def prompt(row: Row) -> str:
        below = row.values.get(columns.extra) if columns.extra else None
        text = text_of(row, columns.text)
        return f"{text}\n{below}" if isinstance(below, str) and below.strip() else text

    answers = tuple(text_of(row, columns.label) for row in table.rows)
    for row, answer in zip(table.rows, answers, strict=True):
        if not answer.strip():
            raise UsageError(f"{row.where}: {columns.label} is empty; allowed: an answer to learn")
    return Examples(tuple(prompt(row) for row in table.rows), None, answers)


def _numbered(table: Table, columns: Columns) -> Examples:
    def number(row: Row) -> float:
        value = row.values.get(columns.label)
        try:
            found = math.nan if value is None or isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            found = math.nan
        if not math.isfinite(found):
            raise UsageError(f"{row.where}: {columns.label}={value!r}; allowed: a finite number")
        return found

    labels = np.asarray([number(row) for row in table.rows], np.float32)
    return Examples(*_texts(table, columns), labels)


def _label(row: Row, columns: Columns) -> str:
    value = row.values.get(columns.label)
    if isinstance(value, str | int) and str(value).strip():
        return str(value).strip()
    raise UsageError(f"{row.where}: {columns.label}={value!r}; allowed: a class")


def _found(table: Table, columns: Columns) -> tuple[str, ...]:
    """The classes of a training part: numbers in their order, names in the alphabet's."""
    labels = {_label(row, columns) for row in table.rows}
    if len(labels) < 2:
        raise UsageError(
            f"{table.name}: all of its examples are of the class {labels.pop()}; allowed: two "
            "classes or more"
        )
    if len(labels) > MOST_CLASSES:
        raise UsageError(
            f"{table.name}: {columns.label} has {len(labels)} different values; allowed: up to "
            f"{MOST_CLASSES} classes (or task regression)"
        )
    try:
        return tuple(sorted(labels, key=int))
    except ValueError:
        return tuple(sorted(labels))


def _classed(table: Table, columns: Columns, classes: Sequence[str]) -> Examples:
    places = {name: place for place, name in enumerate(classes)}
    found = np.zeros(len(table.rows), np.int32)
    for at, row in enumerate(table.rows):
        label = _label(row, columns)
        if label not in places:
            raise UsageError(
                f"{row.where}: {columns.label}={label} is none of the classes; allowed: "
                f"{', '.join(classes[:12])}{', ...' if len(classes) > 12 else ''}"
            )
        found[at] = places[label]
    return Examples(*_texts(table, columns), found)
