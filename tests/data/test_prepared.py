"""Data sets of tensorflow-datasets, read from this machine without tensorflow."""

import json
import sys
import time
from pathlib import Path

import pytest

from jaxhpo.data import prepared
from jaxhpo.data.config import DataConfig, ExamplesConfig
from jaxhpo.data.examples import read_examples
from jaxhpo.data.sources import read_documents
from jaxhpo.errors import UsageError


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two data sets as tensorflow-datasets prepares them."""
    import tensorflow_datasets as tfds

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = tfds.features.FeaturesDict(
                {
                    "text": tfds.features.Text(),
                    "label": tfds.features.ClassLabel(names=["neg", "pos"]),
                }
            )
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {name: self._generate_examples(name) for name in ("test", "train")}

        def _generate_examples(self, name):
            for i in range(6):
                yield i, {"text": f"{name} é{i}", "label": i % 2}

    folder = tmp_path_factory.mktemp("tfds")
    for name in ("imdb_reviews", "odd_set"):
        Builder.name = name
        builder = Builder(data_dir=folder, file_format="array_record")
        builder.download_and_prepare(file_format="array_record")
    info = folder / "odd_set" / "1.0.0" / "dataset_info.json"
    info.write_text(json.dumps({**json.loads(info.read_text()), "fileFormat": "tfrecord"}))
    return folder


def test_examples_come_with_their_splits_and_the_names_of_their_labels(home: Path) -> None:
    config = DataConfig(source="tfds:imdb_reviews", tfds_dir=str(home))
    parts = read_examples(config, ExamplesConfig(), "classification")
    assert set(parts.train.texts) == {f"train é{i}" for i in range(6)}
    assert set(parts.held_out.texts) == {f"test é{i}" for i in range(6)}
    assert parts.classes == ("neg", "pos")
    columns = parts.train.texts, parts.train.labels
    assert {text[-1] for text, y in zip(*columns, strict=True) if y} == set("135")
    assert "tensorflow" not in sys.modules


def test_texts_of_a_data_set_are_documents_to_model(home: Path) -> None:
    found = read_documents(DataConfig(source="tfds:imdb_reviews", tfds_dir=str(home)))
    assert {document.read().decode() for document in found} == {f"train é{i}" for i in range(6)}


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("tfds:glue/sst2", r"not prepared under .*tfds build glue/sst2 --file_format=array_record"),
        ("tfds:imdb_review", r"there is no data set imdb_review; did you mean imdb_reviews\?"),
        ("tfds:odd_set", r"prepared as tfrecord.*tfds build odd_set --file_format=array_record"),
        ("tfds:imdb_reviews:9.9.9", r"imdb_reviews:9\.9\.9 is not prepared"),
        ("tfds:../x", r"allowed: tfds:NAME"),
    ],
)
def test_what_can_not_be_read_is_answered_at_once_with_what_helps(home, source, said) -> None:
    begin = time.monotonic()
    with pytest.raises(UsageError, match=said) as error:
        prepared.find(source, str(home))
    assert "\n" not in str(error.value)
    assert time.monotonic() - begin < 20


def test_an_unknown_split_is_refused_with_those_there_are(home: Path) -> None:
    config = DataConfig(source="tfds:imdb_reviews", tfds_dir=str(home))
    with pytest.raises(UsageError, match=r"no split dev; it has .*train"):
        read_examples(config, ExamplesConfig(held_out="dev"), "classification")
