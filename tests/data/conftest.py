"""Data sets as tensorflow-datasets prepares them, made without it and without a network."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BOOKS = 96
"""Texts of own_books' training split, each 31 bytes and its own."""


def book(at: int) -> str:
    return f"book {at:03} is of one length, já!"


SETS: dict[str, dict[str, Callable[[], Iterator[dict[str, Any]]]]] = {
    "imdb_reviews": {
        split: lambda split=split: (
            {"text": f"{split} é{i}", "label": i % 2, "number": i} for i in range(6)
        )
        for split in ("test", "train")
    },
    "own_books": {
        "train": lambda: ({"text": book(i), "label": 0, "number": i} for i in range(BOOKS)),
        "validation": lambda: (
            {"text": f"validation {i:03} " * 9, "label": 0, "number": i} for i in range(8)
        ),
    },
    "lm1b": {
        split: lambda split=split: (
            {"text": f"{split} {i} " * 9, "label": 0, "number": i} for i in range(40)
        )
        for split in ("train", "test")
    },
    "own_dirt": {
        "train": lambda: (
            {"text": text, "label": 0, "number": i}
            for i, text in enumerate([b"caf\xe9", b"a\0b", "", "été", b"plain"] * 4)
        )
    },
}
"""Data set -> split -> its examples; odd_set beside them is no array record."""


@pytest.fixture(scope="session")
def prepared_sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data sets of SETS, and odd_set."""
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = tfds.features.FeaturesDict(
                {
                    "text": tfds.features.Text(),
                    "label": tfds.features.ClassLabel(names=["neg", "pos"]),
                    "number": tfds.features.Scalar(np.int64),
                }
            )
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split) for split in SETS[self.name]}

        def _generate_examples(self, split):
            yield from enumerate(SETS[self.name][split]())

    folder = tmp_path_factory.mktemp("tfds")
    for name in (*SETS, "odd_set"):
        SETS.setdefault("odd_set", SETS["imdb_reviews"])
        Builder.name = name
        builder = Builder(data_dir=folder, file_format="array_record")
        builder.download_and_prepare(file_format="array_record")
    info = folder / "odd_set" / "1.0.0" / "dataset_info.json"
    info.write_text(json.dumps({**json.loads(info.read_text()), "fileFormat": "tfrecord"}))
    return folder
