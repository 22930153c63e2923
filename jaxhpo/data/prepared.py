"""Data sets of tensorflow-datasets that are on this machine or in Cloud Storage, read without
tensorflow.

Nothing is downloaded or prepared here: that takes a network and tensorflow, so it is said how.
"""

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from jaxhpo.data.known import check_known
from jaxhpo.data.remote import LISTING_SECONDS, REMOTE, folder, within
from jaxhpo.data.tables import Row, Table
from jaxhpo.errors import UsageError

PREFIX = "tfds:"
INFO = "dataset_info.json"
HELD_OUT = ("validation", "validation_matched", "dev", "test", "test_matched")

_NAME = re.compile(r"(\w+)(?:/([\w.+-]+))?(?::(\d+\.\d+\.\d+))?")


@dataclass(frozen=True)
class Prepared:
    """A data set in a folder, `NAME[/CONFIG][:VERSION]`."""

    name: str
    folder: Any
    """a path with pathlib's methods"""

    @property
    def info(self) -> Any:
        """tensorflow-datasets' DatasetInfo."""
        return self._builder().info

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
    given = tfds_dir or os.environ.get("TFDS_DATA_DIR")
    option = "TFDS_DATA_DIR" if given and not tfds_dir else "data.tfds_dir"
    root = folder(given or "~/tensorflow_datasets", option)
    folders = _listed(root, name, f"{option}={given}")
    found = [each for each in folders if _is(each, root / name, config, version)]
    if not found:
        check_known(source, name, config, _others(root))
        raise UsageError(
            f"data set {asked} is not prepared under {root}; prepare it where there is a network "
            f"(needs tensorflow): tfds build {asked} --file_format=array_record, copy the folder "
            "here and pass --data.tfds-dir; or do without: --data.source stdlib"
        )
    if len({str(each.parent) for each in found}) > 1:
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


def _listed(root: Any, name: str, shown: str) -> list[Any]:
    """Folders of a data set's versions, with or without configs between."""
    found = lambda: [
        path.parent for depth in ("*", "*/*") for path in (root / name).glob(f"{depth}/{INFO}")
    ]
    if not _is_remote(root):
        if shown.partition("=")[2] != "None" and not root.is_dir():
            raise UsageError(f"{shown} is no folder; allowed: one that has prepared data sets")
        return found()
    try:
        return within(LISTING_SECONDS, found)
    except Exception as error:  # of a library that has many kinds, none of them ours
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise UsageError(f"{shown} can't be listed: {reason}") from None


def _others(root: Any) -> Sequence[str]:
    """Names of the data sets that are prepared in a folder."""
    if _is_remote(root):
        return within(LISTING_SECONDS, lambda: [path.name for path in root.iterdir()])
    if not root.is_dir():
        return ()
    found = (path for depth in ("*", "*/*") for path in root.glob(f"*/{depth}/{INFO}"))
    return sorted({path.relative_to(root).parts[0] for path in found})


def _is_remote(root: Any) -> bool:
    return str(root).startswith(REMOTE)


def _is(folder: Any, home: Any, config: str | None, version: str | None) -> bool:
    inner = folder.relative_to(home).parts
    fits = config is None or (len(inner) == 2 and inner[0] == config)
    return fits and version in (None, inner[-1])


def _version(folder: Any) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", folder.name))


def _plain(value: Any, names: list[str] | None) -> Any:
    """What a feature holds as JSON would: text for bytes, a label by its name."""
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    value = value.item() if hasattr(value, "item") else value
    if names is not None and isinstance(value, int) and 0 <= value < len(names):
        return names[value]
    return value
