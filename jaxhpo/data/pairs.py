"""Sentences and their translations: parallel files, tables, and prepared data sets."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from jaxhpo.data import prepared
from jaxhpo.data.columns import text_of
from jaxhpo.data.config import DataConfig
from jaxhpo.data.documents import Document
from jaxhpo.data.examples import TRAIN
from jaxhpo.data.tables import READERS, read_table
from jaxhpo.errors import UsageError

HELD_OUT = ("dev", "valid", "validation", "val")
"""Names of parts that members are ranked on; one named test never is."""

Languages = tuple[str, str]
Sentences = Iterator[tuple[str, str]]


@dataclass(frozen=True)
class Pairs:
    """One part of a parallel corpus; `read()` gives its pairs in order, from the start each time.

    Reading raises UsageError naming file and line of what is wrong. What is read are `files`, or
    what `known` describes: JSON values that are others where the pairs may be.
    """

    name: str
    files: tuple[Path, ...]
    read: Callable[[], Sentences]
    known: tuple[object, ...] = ()


def find_parts(config: DataConfig) -> dict[str, Pairs]:
    """Name -> part: of a folder by the files' names, of a data set its splits; a file is "train".

    Raises UsageError where there are none in the two languages, naming those that there are.
    """
    if config.source.startswith(prepared.PREFIX):
        return _splits(config)
    path = Path(config.source).expanduser()
    if path.is_dir():
        return _folder(path, config.pair)
    if path.is_file():
        return {TRAIN[0]: _table(path, TRAIN[0], config.pair)}
    first, second = config.pair
    raise UsageError(
        f"data.source={config.source} is neither a file nor a folder; allowed with data.languages: "
        f"a folder with train.{first} and train.{second}, a {', '.join(sorted(READERS))} file, "
        "or tfds:NAME"
    )


def training_and_held_out(config: DataConfig) -> tuple[Pairs, Pairs]:
    """The part that is trained on, and the one that members are ranked on: the part dev, valid,
    validation or val, else the share `data.held_out` of the training part.

    Raises UsageError as `find_parts` does, and where there is nothing to train on.
    """
    parts = find_parts(config)
    train = next((parts[name] for name in TRAIN if name in parts), None)
    if train is None:
        raise UsageError(
            f"data.source={config.source} has no part train; it has {', '.join(sorted(parts))}"
        )
    held_out = next((parts[name] for name in HELD_OUT if name in parts), None)
    if held_out is not None:
        return train, held_out
    side = lambda held: (
        lambda: (pair for pair in train.read() if (_rank(pair) < config.held_out) == held)
    )
    named = lambda what, held: Pairs(f"{train.name} ({what})", train.files, side(held), train.known)
    return named("training part", False), named("held-out part", True)


def part(config: DataConfig, name: str | None) -> Pairs:
    """The part to translate: by name, or the first that is named test, else the held-out one.

    Raises UsageError naming the parts there are.
    """
    parts = find_parts(config)
    tests = [each for each in sorted(parts) if each.startswith("test")]
    if name is None:
        return parts[tests[0]] if tests else training_and_held_out(config)[1]
    if name not in parts:
        raise UsageError(
            f"part={name}: data.source={config.source} has no such part; it has "
            f"{', '.join(sorted(parts))}"
        )
    return parts[name]


def _rank(pair: tuple[str, str]) -> float:
    """A number in [0, 1) that a source sentence always has: its pairs are never on both sides."""
    digest = hashlib.sha256(b"jaxhpo:" + pair[0].encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def _folder(folder: Path, languages: Languages) -> dict[str, Pairs]:
    names = {path.name for path in folder.iterdir() if path.is_file()}
    sides = [{n.removesuffix(f".{x}") for n in names if n.endswith(f".{x}")} for x in languages]
    parts = {
        stem: _parallel(stem, [folder / f"{stem}.{each}" for each in languages])
        for stem in sorted(sides[0] & sides[1])
    }
    for stem in [stem for stem in (*TRAIN, *HELD_OUT) if stem not in parts]:
        found = [f"{stem}{ending}" for ending in sorted(READERS) if f"{stem}{ending}" in names]
        if found:
            parts[stem] = _table(folder / found[0], stem, languages)
    if not set(TRAIN) & set(parts):
        there = sorted(name for name in names if name.partition(".")[0] in TRAIN)
        raise UsageError(
            f"data.languages={'-'.join(languages)}: {folder} has no train.{languages[0]} and "
            f"train.{languages[1]}; it has {', '.join(there) or 'no training part'}"
        )
    return parts


def _parallel(name: str, paths: list[Path]) -> Pairs:
    def read() -> Sentences:
        sides = [_lines(path) for path in paths]
        if len(sides[0]) != len(sides[1]):
            shown = " and ".join(
                f"{path} has {len(side)} lines" for path, side in zip(paths, sides, strict=True)
            )
            raise UsageError(f"{shown}; allowed: one line for each line of the other")
        for at, pair in enumerate(zip(*sides, strict=True), 1):
            for path, text in zip(paths, pair, strict=True):
                _check(text, f"{path} line {at}")
            yield pair

    return Pairs(name, tuple(paths), read)


def _lines(path: Path) -> list[str]:
    """Lines end at a line feed alone: other separators of Unicode may stand in a sentence."""
    text = Document(path.name, path).read().decode().removeprefix("\ufeff")
    if not text.strip():
        raise UsageError(f"{path} is empty; allowed: a file with a sentence on every line")
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]


def _table(path: Path, name: str, languages: Languages) -> Pairs:
    def read() -> Sentences:
        table = read_table(path)
        _check_there(languages, table.columns, str(path))
        for row in table.rows:
            first, second = (text_of(row, each) for each in languages)
            _check(first, f"{row.where}: {languages[0]}")
            _check(second, f"{row.where}: {languages[1]}")
            yield first, second

    return Pairs(name, (path,), read)


def _splits(config: DataConfig) -> dict[str, Pairs]:
    """Of a data set, which nobody can mend, pairs with an empty side are left out."""
    found = prepared.find(config.source, config.tfds_dir)
    splits = found.info.splits
    _check_there(config.pair, found.columns(), f"data set {found.name}")

    def of(split: str) -> Callable[[], Sentences]:
        def read() -> Sentences:
            for row in found.rows(split):
                first, second = (str(row[each]) for each in config.pair)
                if first.strip() and second.strip():
                    yield first, second

        return read

    known = lambda each: (
        str(found.folder),
        int(each.num_bytes),
        list(map(int, each.shard_lengths)),
    )
    return {
        split: Pairs(f"{found.name} {split}", (), of(split), known(each))
        for split, each in splits.items()
    }


def _check_there(languages: Languages, columns: Iterable[str], where: str) -> None:
    if missing := [each for each in languages if each not in columns]:
        raise UsageError(
            f"data.languages={'-'.join(languages)}: {where} has no {' and no '.join(missing)}; "
            f"it has {', '.join(columns)}"
        )


def _check(text: str, where: str) -> None:
    if not text.strip():
        raise UsageError(f"{where} is empty; allowed: a sentence, translated in the other language")
