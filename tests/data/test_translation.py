"""Laws of translation pairs: how they are read, packed, masked and batched."""

import json
import logging
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jaxhpo.config.run import TrainRun
from jaxhpo.data.bigram import fit
from jaxhpo.data.config import DataConfig
from jaxhpo.data.corpus import open_corpus, training_texts
from jaxhpo.data.packing import PackedBatches, pack, unpacked
from jaxhpo.data.pairs import find_parts, part, training_and_held_out
from jaxhpo.data.tokenizers import Bytes
from jaxhpo.errors import UsageError
from jaxhpo.nn.config import ModelConfig

PAIRS = [(f"eins {i}", f"one {i} and more") for i in range(40)]
DEV = [("zwei\u2028drei", "two three"), ("vier", "four")]


def parallel(folder: Path, name: str, pairs=PAIRS, languages=("de", "en")) -> None:
    for language, side in zip(languages, zip(*pairs, strict=True), strict=True):
        (folder / f"{name}.{language}").write_text("".join(f"{line}\n" for line in side))


def config(source: Path, **changes) -> DataConfig:
    return DataConfig(
        **{"source": str(source), "languages": "de-en", "batch_size": 2, **changes},
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    parallel(tmp_path, "train")
    parallel(tmp_path, "val", DEV)
    parallel(tmp_path, "test_2016", PAIRS[:3])
    return tmp_path


def test_the_same_pairs_come_from_parallel_files_and_tables(folder: Path, tmp_path: Path) -> None:
    tables = tmp_path / "tables"
    tables.mkdir()
    rows = [{"en": en, "de": de, "more": 1} for de, en in PAIRS]
    (tables / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tables / "dev.tsv").write_text("en\tde\n" + "".join(f"{en}\t{de}\n" for de, en in DEV))
    for source in (folder, tables):
        train, held_out = training_and_held_out(config(source))
        assert list(train.read()) == PAIRS
        assert list(held_out.read()) == list(held_out.read()) == DEV
    assert list(part(config(folder), None).read()) == PAIRS[:3]
    assert list(part(config(tables), None).read()) == DEV
    assert set(find_parts(config(folder))) == {"train", "val", "test_2016"}
    backwards = training_and_held_out(config(folder, languages="en-de"))[1]
    assert list(backwards.read()) == [(en, de) for de, en in DEV]


def test_without_a_held_out_part_a_sentence_is_on_one_side_alone(tmp_path: Path) -> None:
    twice = [*PAIRS, *((de, f"{en}!") for de, en in PAIRS)]
    parallel(tmp_path, "train", twice)
    train, held_out = (list(each.read()) for each in training_and_held_out(config(tmp_path)))
    assert sorted([*train, *held_out]) == sorted(twice)
    assert held_out and len(held_out) < len(train)
    assert not {de for de, _ in train} & {de for de, _ in held_out}


def wrong(tmp_path: Path, **files: str) -> Path:
    for name, text in files.items():
        (tmp_path / name.replace("_", ".")).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            {"train_de": "a\nb\nc\n", "train_en": "a\nb\n"},
            r"train\.de has 3 lines and .*train\.en has 2 lines; allowed: one line for each",
        ),
        ({"train_de": "a\n\nc\n", "train_en": "a\nb\nc\n"}, r"train\.de line 2 is empty"),
        ({"train_de": "a\n", "train_en": ""}, r"train\.en is empty; allowed: a file with"),
        ({"train_de": "a\n", "train_fr": "b\n"}, r"no train\.de and train\.en; it has train\.de, "),
        ({"dev_de": "a\n", "dev_en": "b\n"}, r"has no train\.de and .*no training part"),
        ({"train_tsv": "de\tfr\na\tb\n"}, r"train\.tsv has no en; it has de, fr"),
        ({"train_tsv": "de\ten\na\t \n"}, r"train\.tsv line 2: en is empty"),
        ({"train_jsonl": '{"de": "a", "en": 3}\n'}, r"line 1: en is 3; allowed: text"),
    ],
)
def test_what_is_wrong_is_named_with_file_and_line(tmp_path: Path, files, said) -> None:
    with pytest.raises(UsageError, match=said) as error:
        list(training_and_held_out(config(wrong(tmp_path, **files)))[0].read())
    assert "\n" not in str(error.value)


def test_what_can_not_be_translated_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"part=test: .* it has test_2016, train, val"):
        part(config(folder), "test")
    with pytest.raises(
        UsageError, match=r"neither a file nor a folder; .* train\.de and train\.en"
    ):
        find_parts(config(folder / "absent"))
    for languages in ("de", "de-de", "-en", "de-en-fr", "d e-en"):
        with pytest.raises(UsageError, match=r"data\.languages=.*two languages, such as de-en"):
            config(folder, languages=languages)
    with pytest.raises(UsageError, match=r"model\.position=learned with data\.languages=de-en"):
        TrainRun(data=config(folder), model=ModelConfig(position="learned"))
    with pytest.raises(UsageError, match=r"model\.context=4 is shorter than each of the 40 pairs"):
        open_corpus(config(folder), 4, 0)


def test_every_text_is_in_one_row_whole() -> None:
    random = np.random.default_rng(0)
    texts = [np.full(size, at, np.uint16) for at, size in enumerate(random.integers(1, 25, 300), 1)]
    rows = pack(texts, 20, 0)
    fitting = [text for text in texts if len(text) <= 20]
    assert rows.shape[1] == 20 and 200 < len(fitting) < 300
    for text in fitting:
        (found,) = np.flatnonzero((rows == text[0]).any(1))
        (places,) = np.nonzero(rows[found] == text[0])
        assert (np.diff(places) == 1).all() and len(places) == len(text)
    assert (rows != 0).sum() == sum(map(len, fitting))
    assert (rows != 0).mean() > 0.97
    np.testing.assert_array_equal(pack(texts, 20, 0), rows)


def test_the_mask_is_on_exactly_the_target_tokens_and_their_ends() -> None:
    row = np.array([7, 8, 0, 4, 5, 0, 9, 0, 6, 0, 1, 1])
    found = unpacked(row[None], separator=0)
    assert found["tokens"][0].tolist() == row.tolist()
    labels = row[1:]
    assert labels[found["mask"][0] == 1].tolist() == [4, 5, 0, 6, 0]
    assert found["mask"][0].tolist() == [0, 0, 1, 1, 1, 0, 0, 1, 1, 0, 0]
    assert found["segments"][0].tolist() == [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2]


def test_batches_are_a_function_of_seed_and_step_and_an_epoch_has_every_row_once() -> None:
    rows = np.arange(7 * 5, dtype=np.uint16).reshape(7, 5)
    batches = PackedBatches(rows, separator=999, batch_size=3, seed=5)
    whole = batches.batch_at(0, 14)["tokens"]
    assert whole.shape == (14, 3, 5)
    for step in range(14):
        np.testing.assert_array_equal(batches.batch_at(step, 1)["tokens"][0], whole[step])
        halves = [batches.for_rows(*span).batch_at(step, 1)["tokens"] for span in ((0, 1), (1, 3))]
        np.testing.assert_array_equal(np.concatenate(halves, 1)[0], whole[step])
    epochs = whole.reshape(-1, 5)[:, 0].reshape(6, 7)
    assert all(sorted(epoch) == rows[:, 0].tolist() for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs.tolist()}) > 1
    with pytest.raises(UsageError, match=r"data\.batch_size=8 .* allowed: up to 7"):
        PackedBatches(rows, separator=999, batch_size=8)


def test_an_opened_corpus_has_the_pairs_that_fit(folder: Path, caplog) -> None:
    parallel(folder, "train", [*PAIRS, ("lang " * 20, "long")])
    with caplog.at_level(logging.WARNING, "jaxhpo.data"):
        corpus = open_corpus(config(folder, eval_batches=4), 64, seed=3)
    assert "train: 1 of 41 pairs are longer than model.context=64 and are left out" in caplog.text
    texts = b"".join(np.asarray(row, np.uint8).tobytes() for row in corpus.train.packed)
    pieces = texts.replace(b"\1", b"").split(b"\0")[:-1]
    found = list(zip(pieces[::2], pieces[1::2], strict=True))
    assert sorted(found) == sorted((de.encode(), en.encode()) for de, en in PAIRS)
    assert corpus.held_out["tokens"].shape == (1, 2, 65)
    # two held-out pairs fit into one row, and an empty row fills the batch up
    assert corpus.held_out["mask"].sum((0, 2)).tolist() == [len("two three") + len("four") + 2, 0]
    assert corpus.bytes_per_token == 1.0
    assert Bytes().decode(corpus.prompt(64)) in (DEV[0][0], DEV[1][0])
    assert corpus.ended(np.array([5, 6, 0, 7, 0])).tolist() == [5, 6]
    assert open_corpus(config(folder, eval_batches=4), 64, 4).fingerprints == corpus.fingerprints


def test_the_bigram_knows_the_token_before_and_the_targets_alone(folder: Path) -> None:
    corpus = open_corpus(config(folder, eval_batches=4), 64, seed=0)
    train = np.frombuffer(b"".join(en.encode() + b"\0" for _, en in PAIRS), np.uint8)
    model = fit(train, 256)  # pairs across two targets: what comes first after an end
    held_out = [np.frombuffer(b"\0" + en.encode() + b"\0", np.uint8) for _, en in DEV]
    losses = np.concatenate([model.losses(text) for text in held_out])
    # the order of packing decides which targets meet, and all of them begin alike
    assert corpus.baseline() == ("bigram", pytest.approx(losses.mean(), rel=1e-3))


def test_a_tokenizer_is_trained_on_both_sides(folder: Path) -> None:
    given = config(folder, tokenizer="bpe", vocab_size=300)
    corpus = open_corpus(given, 64, 0)
    lengths = [len(corpus.tokenizer.encode(text)) for text in ("eins", "one", "qxyz")]
    assert lengths[0] < 4 and lengths[1] < 3 and lengths[2] == 4
    text = b"".join(document.read() for document in training_texts(given)).decode()
    assert text.split("\n") == [line for pair in PAIRS for line in pair]


def test_pairs_of_a_prepared_data_set_come_by_its_splits(tmp_path: Path) -> None:
    import tensorflow_datasets as tfds

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = "wmt14_translate"
        VERSION = tfds.core.Version("1.0.0")
        BUILDER_CONFIGS = (tfds.core.BuilderConfig(name="de-en"),)

        def _info(self):
            features = tfds.features.Translation(languages=("de", "en"))
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            named = {"train": [*PAIRS, ("", "nothing")], "validation": DEV, "test": PAIRS[:3]}
            return {name: self._generate_examples(pairs) for name, pairs in named.items()}

        def _generate_examples(self, pairs):
            for i, (de, en) in enumerate(pairs):
                yield i, {"de": de, "en": en}

    builder = Builder(data_dir=tmp_path, config="de-en", file_format="array_record")
    builder.download_and_prepare(file_format="array_record")
    given = config(Path("tfds:wmt14_translate/de-en"), tfds_dir=str(tmp_path))
    train, held_out = training_and_held_out(given)
    assert sorted(train.read()) == sorted(PAIRS)
    assert sorted(held_out.read()) == sorted(DEV)
    assert sorted(part(given, None).read()) == sorted(PAIRS[:3])
    assert open_corpus(given, 64, 0).train.windows > 2
    backwards = replace(given, languages="en-de")
    assert sorted(part(backwards, "test").read()) == sorted((en, de) for de, en in PAIRS[:3])
    with pytest.raises(UsageError, match=r"de-fr: data set wmt14_translate/de-en has no fr; it"):
        find_parts(replace(given, languages="de-fr"))
    assert "tensorflow" not in sys.modules
