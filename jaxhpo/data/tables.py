"""Rows of local TSV, CSV and JSONL files, each with the file and line that it stands on."""

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxhpo.data.documents import Document
from jaxhpo.errors import UsageError

MOST_BYTES = 1 << 30
LONGEST_FIELD = 1 << 24
"""Characters in one field of a CSV file, at most."""


@dataclass(frozen=True)
class Row:
    """Values by column, as text or as JSON has them, and `FILE line N`."""

    values: Mapping[str, Any]
    where: str


@dataclass(frozen=True)
class Table:
    """What a file or a split holds: columns in order, and at least one row."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def read_table(path: Path) -> Table:
    """The table in a file, whose ending says how it is written.

    TSV has no quotes: a tab ends a field and a line end ends a row. CSV has those of RFC 4180.
    Raises UsageError naming the line that is malformed, or where there is no row.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise UsageError(
            f"data.source={path} is no table; allowed: a file that ends in "
            f"{', '.join(sorted(READERS))}"
        )
    try:
        size = path.stat().st_size
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror}") from None
    if size > MOST_BYTES:
        raise UsageError(f"{path} has {size >> 20} MB; allowed: up to {MOST_BYTES >> 20} MB")
    text = Document(path.name, path).read().decode().removeprefix("\ufeff")
    rows = tuple(reader(text, str(path)))
    if not rows:
        raise UsageError(f"{path} has no examples; allowed: a file with at least one row")
    columns = tuple(dict.fromkeys(name for row in rows for name in row.values))
    return Table(str(path), columns, rows)


def _tsv(text: str, name: str) -> Iterator[Row]:
    lines = text.split("\n")
    fields = (line.removesuffix("\r").split("\t") for line in lines)
    return _headed(((at, each) for at, each in enumerate(fields, 1) if each != [""]), name)


def _csv(text: str, name: str) -> Iterator[Row]:
    csv.field_size_limit(LONGEST_FIELD)
    reader = csv.reader(text.splitlines(keepends=True), strict=True)

    def numbered() -> Iterator[tuple[int, list[str]]]:
        begun = 1
        try:
            for fields in reader:
                if fields:
                    yield begun, fields
                begun = reader.line_num + 1
        except csv.Error as error:
            raise UsageError(f"{name} line {begun} is no CSV: {error}") from None

    return _headed(numbered(), name)


def _headed(rows: Iterator[tuple[int, list[str]]], name: str) -> Iterator[Row]:
    """Rows by the names in the first one."""
    _, header = next(rows, (0, []))
    columns = [each.strip() for each in header]
    if len(set(columns)) < len(columns):
        raise UsageError(f"{name} line 1 names a column twice: {', '.join(columns)}")
    for at, fields in rows:
        if len(fields) != len(columns):
            raise UsageError(
                f"{name} line {at} has {len(fields)} fields; allowed: {len(columns)}, as line 1 "
                f"has ({', '.join(columns)})"
            )
        yield Row(dict(zip(columns, fields, strict=True)), f"{name} line {at}")


def _jsonl(text: str, name: str) -> Iterator[Row]:
    for at, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = str(error).partition(":")[0] or "nested too deep"
            raise UsageError(f"{name} line {at} is no JSON: {reason}") from None
        if not isinstance(values, dict):
            raise UsageError(
                f"{name} line {at} is a JSON {type(values).__name__}; allowed: an object, such as "
                '{"text": ..., "label": ...}'
            )
        yield Row(values, f"{name} line {at}")


READERS: dict[str, Callable[[str, str], Iterator[Row]]] = {
    ".tsv": _tsv,
    ".csv": _csv,
    ".jsonl": _jsonl,
}
"""Ending of a file's name -> its rows, from its text and its name for people."""
