"""Data sets of tensorflow-datasets that are on this machine, read without tensorflow.

Nothing is downloaded or prepared here: that takes a network and tensorflow, so it is said how.
"""

import difflib
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxhpo.data.config import DataConfig
from jaxhpo.data.documents import Document
from jaxhpo.data.tables import Row, Table
from jaxhpo.errors import UsageError

PREFIX = "tfds:"
INFO = "dataset_info.json"
MOST_DOCUMENTS = 1_000_000
TEXTS = ("text", "book_text", "content", "sentence", "document")
HELD_OUT = ("validation", "validation_matched", "dev", "test", "test_matched")
UNLISTED = (
    *("glue", "super_glue", "c4", "wikipedia", "wiki40b", "wmt14_translate", "gsm8k"),
    *("trivia_qa", "natural_questions", "xnli"),
)
"""Names that the library lists only where tensorflow is installed."""

_NAME = re.compile(r"(\w+)(?:/([\w.+-]+))?(?::(\d+\.\d+\.\d+))?")


@dataclass(frozen=True)
class Prepared:
    """A data set in a folder, `NAME[/CONFIG][:VERSION]`."""

    name: str
    folder: Path

    def splits(self) -> tuple[str, ...]:
        return tuple(self._builder().info.splits)

    def columns(self) -> tuple[str, ...]:
        return tuple(self._builder().info.features)

    def table(self, split: str) -> Table:
        """A split as rows, labels by their names. Raises UsageError naming the splits there are."""
        where = f"{self.name} {split} row"
        rows = tuple(Row(row, f"{where} {at}") for at, row in enumerate(self.rows(split)))
        if not rows:
            raise UsageError(f"data set {self.name}: the split {split} has no examples")
        return Table(f"{self.name} {split}", self.columns(), rows)

    def rows(self, split: str) -> Iterator[dict[str, Any]]:
        """The same rows by column, one at a time."""
        builder = self._builder()
        if split not in builder.info.splits:
            raise UsageError(
                f"data set {self.name} has no split {split}; it has "
                f"{', '.join(builder.info.splits)}"
            )
        features = builder.info.features
        classes = {n: f.names for n, f in features.items() if getattr(f, "names", None)}
        for row in builder.as_data_source(split=split):
            yield {n: _plain(v, classes.get(n)) for n, v in row.items()}

    def _builder(self) -> Any:
        import tensorflow_datasets as tfds

        return tfds.builder_from_directory(self.folder)


def find(source: str, tfds_dir: str | None) -> Prepared:
    """The data set that `tfds:NAME` means.

    Raises UsageError where it is not prepared, or not as array records, with the command that
    prepares it; and for an unknown name with the nearest.
    """
    asked = source.removeprefix(PREFIX)
    match = _NAME.fullmatch(asked)
    if match is None:
        raise UsageError(f"data.source={source}; allowed: tfds:NAME, such as tfds:glue/sst2")
    name, config, version = match.groups()
    root = Path(tfds_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    folders = [
        path.parent for depth in ("*", "*/*") for path in (root / name).glob(f"{depth}/{INFO}")
    ]
    found = [each for each in folders if _is(each, root / name, config, version)]
    if not found:
        _check_known(source, name)
        raise UsageError(
            f"data set {asked} is not prepared under {root}; prepare it where there is a network "
            f"(needs tensorflow): tfds build {asked} --file_format=array_record, copy the folder "
            "here and pass --data.tfds-dir"
        )
    if len({each.parent for each in found}) > 1:
        configs = ", ".join(sorted({f"{name}/{each.parent.name}" for each in found}))
        raise UsageError(f"data.source={source} is one of several; allowed: {configs}")
    newest = max(found, key=_version)
    try:
        form = json.loads((newest / INFO).read_text()).get("fileFormat")
    except (OSError, ValueError, AttributeError):
        raise UsageError(f"{newest / INFO} can't be read; prepare {asked} again") from None
    if form != "array_record":
        raise UsageError(
            f"data set {asked} is prepared as {form}, which needs tensorflow; prepare it again: "
            f"tfds build {asked} --file_format=array_record"
        )
    return Prepared(asked, newest)


def documents(config: DataConfig) -> list[Document]:
    """The texts of a data set's training split, for language modelling."""
    found = find(config.source, config.tfds_dir)
    table = found.table("train" if "train" in found.splits() else found.splits()[0])
    if len(table.rows) > MOST_DOCUMENTS:
        raise UsageError(
            f"data.source={config.source} has {len(table.rows)} documents; allowed: up to "
            f"{MOST_DOCUMENTS}"
        )
    column = next((each for each in TEXTS if each in table.columns), None)
    if column is None:
        raise UsageError(
            f"data.source={config.source} has no text to model; it has {', '.join(table.columns)}"
        )
    return [
        Document(f"{found.name}/{at}", content=str(row.values[column]).encode())
        for at, row in enumerate(table.rows)
        if row.values[column]
    ]


def _is(folder: Path, home: Path, config: str | None, version: str | None) -> bool:
    inner = folder.relative_to(home).parts
    fits = config is None or (len(inner) == 2 and inner[0] == config)
    return fits and version in (None, inner[-1])


def _version(folder: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", folder.name))


def _check_known(source: str, name: str) -> None:
    import tensorflow_datasets as tfds

    known: Iterable[str] = {*tfds.list_builders(with_community_datasets=False), *UNLISTED}
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(f"data.source={source}: there is no data set {name}{hint}")


def _plain(value: Any, names: list[str] | None) -> Any:
    """What a feature holds as JSON would: text for bytes, a label by its name."""
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    value = value.item() if hasattr(value, "item") else value
    if names is not None and isinstance(value, int) and 0 <= value < len(names):
        return names[value]
    return value
