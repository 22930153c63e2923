"""Laws of supervised examples: how they are read, split, encoded and batched."""

import json
from pathlib import Path

import numpy as np
import pytest

from jaxhpo.data.config import DataConfig, ExamplesConfig
from jaxhpo.data.encoding import encode_examples, encode_instructions
from jaxhpo.data.examples import Examples, read_examples
from jaxhpo.data.subwords import Subwords
from jaxhpo.data.supervised import ExampleBatches, open_examples
from jaxhpo.data.tokenizers import Bytes
from jaxhpo.errors import UsageError

ROWS = [("a fine film", "good"), ("a dull film", "bad"), ("so good", "good"), ("awful", "bad")]


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def tsv(path: Path, rows=ROWS, header="sentence\tlabel") -> Path:
    return write(path, "\n".join([header, *("\t".join(row) for row in rows)]) + "\n")


def read(source: Path, kind="classification", held_out: Path | None = None, **examples):
    where = None if held_out is None else str(held_out)
    return read_examples(
        DataConfig(source=str(source)), ExamplesConfig(held_out=where, **examples), kind
    )


def test_the_same_examples_come_from_tsv_csv_and_jsonl(tmp_path: Path) -> None:
    dev = tsv(tmp_path / "held.tsv", ROWS[:2])
    files = [
        tsv(tmp_path / "a.tsv"),
        write(tmp_path / "a.csv", "label,text\n" + "".join(f'{y},"{x}"\n' for x, y in ROWS)),
        write(
            tmp_path / "a.jsonl",
            "\n\n".join(json.dumps({"review": x, "sentiment": y}) for x, y in ROWS),
        ),
    ]
    found = [read(file, held_out=dev) for file in files]
    assert {parts.train.fingerprint for parts in found} == {found[0].train.fingerprint}
    assert found[0].train.texts == tuple(x for x, _ in ROWS)
    assert found[0].classes == ("bad", "good")
    assert found[0].train.labels.tolist() == [1, 0, 1, 0]
    assert found[0].held_out.labels.tolist() == [1, 0]


def test_csv_quotes_may_hold_commas_and_line_ends_and_tsv_has_none(tmp_path: Path) -> None:
    quoted = write(tmp_path / "a.csv", 'text,label\n"one, ""two""\nthree",0\nplain,1\n')
    held = tsv(tmp_path / "held.tsv", [('a "quote', "0"), ("b", "1")])
    parts = read(quoted, held_out=held)
    assert parts.train.texts == ('one, "two"\nthree', "plain")
    assert parts.held_out.texts[0] == 'a "quote'


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.tsv", "sentence\tlabel\nfine\t1\nbad\n", r"a\.tsv line 3 has 1 fields; allowed: 2"),
        ("a.csv", 'text,label\nfine,1\n"open,0\n', r"a\.csv line 3 is no CSV"),
        ("a.jsonl", '{"text": "x", "label": 0}\n{oops\n', r"a\.jsonl line 2 is no JSON"),
        ("a.jsonl", "[1, 2]\n", r"a\.jsonl line 1 is a JSON list; allowed: an object"),
        ("a.tsv", "sentence\tlabel\n", r"a\.tsv has no examples"),
        ("a.tsv", "", r"a\.tsv has no examples"),
        ("a.tsv", "x\ty\n1\t2\n", r"has the columns x, y; say with examples\.label"),
        ("a.jsonl", '{"text": 7, "label": 0}\n{"text": "b", "label": 1}', r"line 1: text is 7"),
        ("a.tsv", "sentence\tlabel\nx\t1\ny\t1\nz\t1\n", r"all of its examples are of the class 1"),
        ("a.xml", "<a/>", r"is no table; allowed: a file that ends in \.csv, \.jsonl, \.tsv"),
    ],
)
def test_what_is_malformed_is_named_with_file_and_line(tmp_path, name, text, said) -> None:
    with pytest.raises(UsageError, match=said) as error:
        read(write(tmp_path / name, text))
    assert "\n" not in str(error.value)


def test_a_label_outside_the_classes_is_named_with_file_and_line(tmp_path: Path) -> None:
    held = tsv(tmp_path / "held.tsv", [("x", "good"), ("y", "odd")])
    with pytest.raises(UsageError, match=r"held\.tsv line 3: label=odd is none.*bad, good"):
        read(tsv(tmp_path / "a.tsv"), held_out=held)
    with pytest.raises(UsageError, match=r"a\.tsv line 2: label=good is none of the classes"):
        read(tsv(tmp_path / "a.tsv"), classes=("bad", "great"))


def test_given_classes_say_the_order(tmp_path: Path) -> None:
    file = tsv(tmp_path / "a.tsv")
    parts = read(file, held_out=file, classes=("good", "bad"))
    assert parts.train.labels.tolist() == [0, 1, 0, 1]


def test_classes_that_are_numbers_are_in_their_order(tmp_path: Path) -> None:
    file = tsv(tmp_path / "a.tsv", [(str(i), str(i)) for i in (10, 9, 2)])
    assert read(file, held_out=file).classes == ("2", "9", "10")


def test_a_number_that_is_none_is_named(tmp_path: Path) -> None:
    file = tsv(tmp_path / "a.tsv", [("x", "0.5"), ("y", "nan")], "text\tscore")
    with pytest.raises(UsageError, match=r"a\.tsv line 3: score='nan'; allowed: a finite number"):
        read(file, "regression", held_out=file)


def test_dev_beside_train_is_held_out_and_columns_may_have_other_names(tmp_path: Path) -> None:
    tsv(tmp_path / "train.tsv")
    write(tmp_path / "dev.tsv", "label\tcontent\nbad\tno\n")
    for source in (tmp_path, tmp_path / "train.tsv"):
        parts = read(source)
        assert (len(parts.train), parts.held_out.texts) == (4, ("no",))


def test_equal_texts_are_never_on_both_sides_of_a_split(tmp_path: Path) -> None:
    rows = [(f"text {i % 20}", str(i % 2)) for i in range(100)]
    parts = read(tsv(tmp_path / "a.tsv", rows))
    assert not set(parts.train.texts) & set(parts.held_out.texts)
    assert len(parts.train) + len(parts.held_out) == 100
    assert len(set(parts.held_out.texts)) == 2, "a tenth of the different texts"


def test_one_example_can_not_be_split(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="too few to hold out"):
        read(tsv(tmp_path / "a.tsv", ROWS[:1]))


def test_pairs_are_found_by_their_usual_names(tmp_path: Path) -> None:
    file = tsv(
        tmp_path / "a.tsv", [("p", "h", "yes"), ("q", "i", "no")], "premise\thypothesis\tlabel"
    )
    parts = read(file, "pairs", held_out=file)
    assert (parts.train.texts, parts.train.pairs) == (("p", "q"), ("h", "i"))
    with pytest.raises(UsageError, match=r"examples\.pair"):
        read(tsv(tmp_path / "b.tsv"), "pairs", text="sentence")


def test_instructions_have_their_input_below_the_prompt(tmp_path: Path) -> None:
    lines = [
        {"instruction": "Add", "input": "1 2", "output": "3"},
        {"instruction": "Hi", "output": "Yo"},
    ]
    file = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, lines)))
    parts = read(file, "instructions", held_out=file)
    assert parts.train.texts == ("Add\n1 2", "Hi")
    assert parts.train.labels == ("3", "Yo")
    file.write_text('{"prompt": "a", "answer": " "}\n')
    with pytest.raises(UsageError, match="line 1: answer is empty"):
        read(file, "instructions", held_out=file)


# encoding


def examples(texts, labels=None, pairs=None) -> Examples:
    labels = np.zeros(len(texts), np.int32) if labels is None else labels
    return Examples(tuple(texts), None if pairs is None else tuple(pairs), labels)


def test_texts_end_with_the_separator_and_are_padded_on_the_right() -> None:
    found = encode_examples(Bytes(), examples(["abc", "abcdefgh"]), 6, 256)
    assert found["tokens"].tolist() == [[97, 98, 99, 0, 0, 0], [97, 98, 99, 100, 101, 0]]
    assert found["lengths"].tolist() == [4, 6]
    assert "token_types" not in found


def test_of_a_pair_the_longer_text_is_cut() -> None:
    found = encode_examples(Bytes(), examples(["abcdef"], pairs=["xy"]), 8, 256)
    assert bytes(found["tokens"][0].tolist()) == b"abcd\0xy\0"
    found = encode_examples(Bytes(), examples(["abcdef"], pairs=["uvwxyz"]), 8, 256)
    assert bytes(found["tokens"][0].tolist()) == b"abc\0uvw\0"


def test_a_template_puts_special_tokens_and_segments_in() -> None:
    found = encode_examples(bert(), examples(["a b", "b"], pairs=["c", "c c c c"]), 6, 9)
    assert found["tokens"].tolist() == [[1, 3, 4, 2, 5, 2], [1, 4, 2, 5, 5, 2]]
    assert found["token_types"].tolist() == [[0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 1]]
    assert found["lengths"].tolist() == [6, 6]


def bert() -> Subwords:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocab = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "a": 3, "b": 4, "c": 5}
    engine = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    engine.pre_tokenizer = pre_tokenizers.Whitespace()
    engine.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    return Subwords(engine.to_str(), "bert")


def test_only_the_answer_and_its_end_are_learnt() -> None:
    found = encode_instructions(Bytes(), examples(["ab"], ("xyz",)), 10, 256)
    whole = [*b"ab\nxyz\0", 0, 0, 0, 0]
    assert found["tokens"][0].tolist() == whole[:-1]
    assert found["labels"][0].tolist() == whole[1:]
    learnt = found["labels"][0][found["mask"][0] > 0]
    assert bytes(learnt.tolist()) == b"xyz\0"


def test_a_long_prompt_loses_its_beginning_and_a_long_answer_its_end() -> None:
    found = encode_instructions(Bytes(), examples(["abcdefgh"], ("xyz",)), 7, 256)
    assert bytes([*found["tokens"][0].tolist(), found["labels"][0][-1]]) == b"fgh\nxyz\0"
    found = encode_instructions(Bytes(), examples(["ab"], ("u" * 20,)), 6, 256)
    assert found["mask"][0].sum() == 6
    assert set(found["labels"][0].tolist()) == {ord("u")}


def test_what_a_template_puts_before_a_text_opens_an_instruction_and_is_not_written() -> None:
    tokenizer = llama()
    found = encode_instructions(tokenizer, examples(["a b a"], ("c",)), 4, 9)
    assert found["tokens"].tolist() == [[1, 4, 3, 5]]  # the prompt's beginning is cut, not this
    assert found["labels"][0][found["mask"][0] > 0].tolist() == [5, 2]
    assert tokenizer.decode([1, 3, 4]) == "a b"


def llama() -> Subwords:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocab = {"[UNK]": 0, "<s>": 1, "</s>": 2, "a": 3, "b": 4, "c": 5}
    engine = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    engine.pre_tokenizer = pre_tokenizers.Whitespace()
    engine.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A $B", [("<s>", 1)])
    return Subwords(engine.to_str(), "llama")


# batches


def batches(count=23, batch_size=4, seed=3) -> ExampleBatches:
    return ExampleBatches(
        {"tokens": np.arange(count)[:, None], "labels": np.arange(count)}, batch_size, seed
    )


@pytest.mark.parametrize("epoch", [0, 1, 4])
def test_every_example_comes_once_an_epoch(epoch: int) -> None:
    labels = batches().batch_at(0, 6 * 5)["labels"].ravel()
    assert sorted(labels[23 * epoch : 23 * (epoch + 1)]) == list(range(23))


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    labels = batches().batch_at(0, 23 * 5)["labels"].ravel().reshape(20, 23)
    assert len(set(map(tuple, labels))) == 20
    assert not np.array_equal(labels[0], batches(seed=4).batch_at(0, 6)["labels"].ravel()[:23])


def test_many_steps_at_once_are_the_steps_one_by_one() -> None:
    whole = batches().batch_at(7, 9)
    assert whole["tokens"].shape == (9, 4, 1) and whole["tokens"].dtype == np.int32
    for i in range(9):
        np.testing.assert_array_equal(whole["labels"][i], batches().batch_at(7 + i, 1)["labels"][0])


def test_a_batch_larger_than_the_training_part_is_refused() -> None:
    with pytest.raises(UsageError, match=r"data\.batch_size=24 .* allowed: up to 23"):
        batches(batch_size=24)


@pytest.mark.parametrize(("batch_size", "most", "scored"), [(4, 64, 10), (4, 2, 8), (5, 64, 10)])
def test_weighted_losses_average_to_the_mean_over_examples(tmp_path, batch_size, most, scored):
    rows = [(f"text {i}", str(i % 3)) for i in range(10)]
    file = tsv(tmp_path / "a.tsv", rows)
    corpus = open_examples(
        DataConfig(source=str(file), batch_size=batch_size, eval_batches=most),
        ExamplesConfig(held_out=str(file)), "classification", 12, 0, Bytes(), 256,
    )  # fmt: skip
    assert corpus.held_out_examples == scored
    losses = np.arange(corpus.held_out["weight"].size, dtype=np.float64).reshape(-1, batch_size)
    by_batch = (losses * corpus.held_out["weight"]).mean(1)
    assert by_batch.mean() == pytest.approx(np.arange(scored).mean(), rel=1e-6)
    assert corpus.labels.shape == (scored,)


def test_the_baseline_of_classes_is_the_entropy_of_their_shares(tmp_path: Path) -> None:
    train = tsv(tmp_path / "a.tsv", [("x", "0")] * 5 + [("y", "1")] * 2)
    held = tsv(tmp_path / "b.tsv", [("z", "0"), ("w", "1")])
    corpus = open_examples(
        DataConfig(source=str(train), batch_size=2), ExamplesConfig(held_out=str(held)),
        "classification", 12, 0, Bytes(), 256,
    )  # fmt: skip
    name, loss = corpus.baseline()
    assert name == "class shares"
    assert loss == pytest.approx(-(np.log(6 / 9) + np.log(3 / 9)) / 2)
