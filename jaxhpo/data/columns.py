"""Which columns of a table are text, its pair, and the label: named, or found by common names."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from jaxhpo.data.config import ExamplesConfig
from jaxhpo.data.tables import Row, Table
from jaxhpo.errors import UsageError

Kind = Literal["classification", "regression", "pairs", "instructions"]

LABELS = ("label", "labels", "score", "similarity", "target", "class", "sentiment", "stars")
SINGLE = ("sentence", "text", "content", "review", "document", "sentence1", "question", "premise")
PAIRS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("question", "passage"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("query", "document"),
)
PROMPTS = ("prompt", "instruction", "question", "input", "source")
ANSWERS = ("answer", "completion", "response", "output", "target", "label")
EXTRA = {"instruction": "input"}
"""A prompt's column -> one that is put below it where the table has it and it isn't empty."""


@dataclass(frozen=True)
class Columns:
    """Names of the columns that are read; `extra` is put below the text where it isn't empty."""

    text: str
    pair: str | None
    label: str
    extra: str | None = None


def find_columns(table: Table, kind: Kind, config: ExamplesConfig) -> Columns:
    """The columns of a task. Raises UsageError naming those that there are."""
    if kind == "instructions":
        text = _named("text", config.text, table, PROMPTS)
        label = _named("label", config.label, table, [a for a in ANSWERS if a != text])
        extra = EXTRA.get(text) if config.text is None else None
        return Columns(text, None, label, extra if extra in table.columns else None)
    label = _named("label", config.label, table, LABELS)
    found = next((pair for pair in PAIRS if set(pair) <= set(table.columns)), None)
    wanted = kind == "pairs" or config.pair is not None or (kind == "regression" and found)
    if not wanted:
        return Columns(_named("text", config.text, table, SINGLE), None, label)
    first, second = found or ("", "")
    text = _named("text", config.text, table, [first] if first else [])
    return Columns(text, _named("pair", config.pair, table, [second] if second else []), label)


def _named(option: str, asked: str | None, table: Table, usual: Sequence[str]) -> str:
    if asked is not None:
        if asked in table.columns:
            return asked
        raise UsageError(
            f"examples.{option}={asked}: {table.name} has no such column; it has "
            f"{', '.join(table.columns)}"
        )
    lowered = {column.lower(): column for column in table.columns}
    found = next((lowered[name] for name in usual if name in lowered), None)
    if found is None:
        raise UsageError(
            f"{table.name} has the columns {', '.join(table.columns)}; say with "
            f"examples.{option} which of them is the {option}"
        )
    return found


def text_of(row: Row, column: str) -> str:
    """A row's text; UsageError where there is none."""
    value = row.values.get(column)
    if not isinstance(value, str):
        shown = "absent" if value is None else repr(value)[:40]
        raise UsageError(f"{row.where}: {column} is {shown}; allowed: text")
    return value
