"""What text is trained on, and how it becomes batches of tokens."""

import math
from dataclasses import dataclass
from pathlib import PurePath

from jaxhpo.errors import UsageError


@dataclass(frozen=True)
class DataConfig:
    """Text, tokenizer and batches; every value is static."""

    source: str = "stdlib"
    """stdlib (Python's own source code), synthetic (a toy language), a text file, a folder, a
    prepared data set such as tfds:lm1b or tfds:c4/en@train[:1%], or several of these by their
    weights: mix(stdlib=0.7, notes.txt=0.3)"""
    languages: str | None = None
    """learn to translate: languages from and to, such as de-en, of a source with pairs of
    sentences: train.de and train.en in a folder, columns of a table or of a data set"""
    tokenizer: str = "bytes"
    """bytes, bpe (trained on the training part), or the path of a tokenizer.json"""
    vocab_size: int | None = None
    """tokens of a bpe tokenizer that is trained here (default: 4096)"""
    batch_size: int = 8
    """sequences in one training batch, and in one held-out batch"""
    held_out: float = 0.1
    """share of the documents that is never trained on (of a prepared data set with a validation
    split: that split instead)"""
    eval_batches: int = 8
    """held-out batches that a score is measured on"""
    glob: str = "**/*"
    """which files of a folder are read; hidden ones never are"""
    tfds_dir: str | None = None
    """folder, or gs:// folder, of prepared data sets (default: that of tensorflow-datasets)"""
    column: str | None = None
    """column of a prepared data set that is the text (default: found by its name, such as text)"""
    stream: bool = False
    """read prepared data sets while training, and keep no tokens of them (for data too large to)"""
    workers: int | None = None
    """processes that make tokens of a large corpus (default: one for each core)"""
    cache: str | None = None
    """folder for tokens and trained tokenizers (default: jaxhpo in the user's cache folder)"""

    def __post_init__(self) -> None:
        for name in ("source", "tokenizer", "glob"):
            if not getattr(self, name).strip():
                raise UsageError(f"data.{name} is empty; leave it out or give a value")
        for name in ("source", "tokenizer", "glob", "cache", "tfds_dir", "column"):
            if "\0" in (getattr(self, name) or ""):
                raise UsageError(f"data.{name} contains a NUL character; allowed: text without")
        if self.cache is not None and not self.cache.strip():
            raise UsageError("data.cache is empty; leave it out or name a folder")
        for name in ("batch_size", "eval_batches"):
            if getattr(self, name) < 1:
                raise UsageError(f"data.{name}={getattr(self, name)}; allowed: 1 or more")
        if not 0.0 < self.held_out < 1.0:
            raise UsageError(f"data.held_out={self.held_out}; allowed: above 0 and below 1")
        if self.vocab_size is not None and self.vocab_size < 1:
            raise UsageError(f"data.vocab_size={self.vocab_size}; allowed: 257 or more")
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"data.workers={self.workers}; allowed: 1 or more")
        _ = self.mixture  # refused here where it is none
        if self.languages is not None:
            first, _, second = self.languages.partition("-")
            if not (first.isidentifier() and second.isidentifier() and first != second):
                raise UsageError(
                    f"data.languages={self.languages}; allowed: two languages, such as de-en"
                )
            self.refuse_several(f"data.languages={self.languages}")
        if PurePath(self.glob).is_absolute() or ".." in PurePath(self.glob).parts:
            raise UsageError(f"data.glob={self.glob}; allowed: a pattern inside the folder")

    @property
    def pair(self) -> tuple[str, str]:
        """The languages translated from and to, where they are given."""
        first, _, second = (self.languages or "").partition("-")
        return first, second

    @property
    def mixture(self) -> tuple[tuple[str, float], ...]:
        """Names and weights of the sources; one source is a mixture of one.

        Raises UsageError for a `mix(...)` that is none.

        >>> DataConfig(source="mix(stdlib=3, notes.txt=1)").mixture
        (('stdlib', 3.0), ('notes.txt', 1.0))
        """
        text = self.source.strip()
        if not (text.startswith("mix(") and text.endswith(")")):
            return ((self.source, 1.0),)
        found: dict[str, float] = {}
        for part in text[4:-1].split(","):
            name, equals, weight = part.rpartition("=")
            name = name.strip()
            if not name or not equals:
                raise UsageError(
                    f"data.source={text}: {part.strip() or 'nothing'!r} is no NAME=WEIGHT; "
                    "allowed: such as mix(stdlib=0.7, notes.txt=0.3), no name with a comma"
                )
            if name in found:
                raise UsageError(f"data.source={text} names {name} twice; allowed: once")
            found[name] = _weight(text, name, weight.strip())
        least = sum(found.values()) / MOST_UNEQUAL
        for name, weight in found.items():
            if weight < least:
                raise UsageError(
                    f"data.source={text}: the weight of {name} is below one part in "
                    f"{MOST_UNEQUAL} of all; allowed: a larger one, or leave {name} out"
                )
        return tuple(found.items())

    def refuse_several(self, what: str) -> None:
        """Raises UsageError for a mixture, a part of a split or a stream."""
        if len(self.mixture) > 1:
            raise UsageError(f"data.source={self.source} with {what}; allowed: one source")
        if self.source.startswith("tfds:") and "@" in self.source:
            raise UsageError(f"data.source={self.source} with {what}; allowed: a whole data set")
        if self.stream:
            raise UsageError(f"data.stream with {what}; leave it out: its examples are kept")


MOST_UNEQUAL = 1 << 16
"""A source has at least one part in so many of a mixture."""


def _weight(text: str, name: str, written: str) -> float:
    try:
        weight = float(written)
    except ValueError:
        weight = math.nan
    if not (math.isfinite(weight) and weight > 0):
        raise UsageError(
            f"data.source={text}: the weight {written} of {name}; allowed: a number above 0 (leave "
            f"{name} out where none of it is wanted)"
        )
    return weight


@dataclass(frozen=True)
class ExamplesConfig:
    """Which columns of a table are read, and what is held out; every value is static."""

    text: str | None = None
    """column of the text or the prompt (default: found by its name, such as sentence)"""
    pair: str | None = None
    """column of the second text (default: found by its name, such as sentence2, where needed)"""
    label: str | None = None
    """column of the label, the number or the answer (default: found by its name)"""
    classes: tuple[str, ...] = ()
    """labels allowed, in order (default: all that the training part has)"""
    held_out: str | None = None
    """file, or split of a data set, that is held out (default: dev or validation beside train where
    there is one, else the share data.held_out of the examples)"""

    def __post_init__(self) -> None:
        for name in ("text", "pair", "label", "held_out"):
            value = getattr(self, name)
            if value is not None and not value.strip():
                raise UsageError(f"examples.{name} is empty; leave it out or give a value")
        if len(set(self.classes)) < len(self.classes):
            raise UsageError(f"examples.classes names one twice: {', '.join(self.classes)}")
        if len(self.classes) == 1:
            raise UsageError(f"examples.classes={self.classes[0]}; allowed: two or more")
