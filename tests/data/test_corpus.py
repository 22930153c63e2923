"""Opening a corpus: its split, its fingerprints, what is refused and in which words."""

import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jaxhpo.data import Corpus, DataConfig, Document, fingerprint, open_corpus, split
from jaxhpo.data.sources import SOURCES
from jaxhpo.data.tokenizers import TOKENIZERS
from jaxhpo.errors import UsageError

Open = Callable[..., Corpus]


@pytest.fixture
def opened(tmp_path: Path) -> Open:
    def open_(source: object, rows: tuple[int, int] | None = None, **options: object) -> Corpus:
        options = {"cache": str(tmp_path / "cache"), "eval_batches": 2, **options}
        return open_corpus(DataConfig(source=str(source), **options), 16, seed=0, rows=rows)

    return open_


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "texts"
    root.mkdir()
    for i in range(30):
        (root / f"{i}.txt").write_text(f"number {i} is a text with été and 数\r\n" * 40)
    return root


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_has_documents_with_unique_names(name: str) -> None:
    documents = SOURCES[name]()
    names = [document.name for document in documents]
    assert names and len(set(names)) == len(names)
    assert all(not Path(each).is_absolute() for each in names)


def test_the_embedded_corpus_is_as_large_as_said_and_has_no_tests() -> None:
    documents = SOURCES["stdlib"]()
    size = sum(each.path.stat().st_size for each in documents)
    assert 6e6 < size < 14e6
    assert not [each.name for each in documents if "/test" in each.name or "idlelib" in each.name]


def test_the_synthetic_corpus_is_golden() -> None:
    """Published numbers rest on it: no change, on any Python."""
    text = b"".join(each.read() for each in SOURCES["synthetic"]())
    assert (len(text), hashlib.sha256(text).hexdigest()) == (
        372391,
        "229cd17d5d1a8a65fc048ed2ff6874c4092da20946688867e3875ae83f3d32dc",
    )


def test_the_synthetic_corpus_can_be_learnt_from_context() -> None:
    """Four bytes of context predict far better than one: less than half the loss per byte."""
    text = b"".join(each.read() for each in SOURCES["synthetic"]())
    assert _entropy(text, 4) < 0.5 * _entropy(text, 1)


def _entropy(text: bytes, length: int) -> float:
    """Entropy of a byte given the `length` before it, in nats, as counted in the text."""
    whole, before = (
        np.unique([text[i : i + n] for i in range(len(text) - length)], return_counts=True)[1]
        for n in (length + 1, length)
    )
    bits = lambda counts: -(counts / counts.sum() * np.log(counts / counts.sum())).sum()
    return bits(whole) - bits(before)


def test_a_document_keeps_its_side_when_others_come() -> None:
    few = [Document(f"{i}.txt") for i in range(60)]
    train, held_out = split(few, 0.2)
    more_train, more_held_out = split([*few, *(Document(f"{i}.md") for i in range(99))], 0.2)
    assert {*train} < {*more_train} and {*held_out} < {*more_held_out}
    assert not {*train} & {*held_out} and {*train} | {*held_out} == {*few}


@pytest.mark.parametrize("count", [2, 3, 8])
@pytest.mark.parametrize("share", [0.001, 0.999])
def test_no_side_of_a_split_is_empty(count: int, share: float) -> None:
    train, held_out = split([Document(str(i)) for i in range(count)], share)
    assert train and held_out and len(train) + len(held_out) == count


@pytest.mark.parametrize("text", ["a b\n\n" * 99, "line\n" * 99, "é" * 995, "x" * 50])
def test_a_single_document_is_cut_and_nothing_lost(text: str) -> None:
    whole = Document("one", content=text.encode())
    (head,), (tail,) = split([whole], 0.1)
    assert head.read() + tail.read() == whole.read()
    assert 0.05 < len(tail.read()) / len(whole.read()) < 0.2


def test_the_stream_is_the_documents_with_a_separator_after_each(
    folder: Path, opened: Open
) -> None:
    corpus = opened(folder)
    parts = bytes(corpus.train.stream).split(b"\0")
    assert parts.pop() == b""
    texts = [each.read_bytes() for each in sorted(folder.iterdir())]
    assert len(parts) < len(texts) and set(parts) < set(texts)
    assert parts == sorted(parts, key=lambda text: f"{text.split()[1].decode()}.txt")


def test_opening_again_gives_the_same_without_reading_files(
    folder: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    for each in folder.iterdir():
        os.utime(each, (10**9, 10**9))
    first = opened(folder)
    monkeypatch.setattr(Document, "read", lambda self: pytest.fail(f"read {self.name} again"))
    again = opened(folder)
    assert again.fingerprints == first.fingerprints
    np.testing.assert_array_equal(again.batch_at(3, 2)["tokens"], first.batch_at(3, 2)["tokens"])


def test_a_changed_file_changes_the_fingerprint_even_at_the_same_size(
    folder: Path, opened: Open
) -> None:
    first = opened(folder)
    for each in folder.iterdir():
        before = each.stat()
        each.write_bytes(each.read_bytes().replace(b"text", b"TEXT"))
        os.utime(each, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert opened(folder).fingerprints["data"] != first.fingerprints["data"]


def test_a_renamed_file_changes_a_fingerprint(folder: Path, opened: Open) -> None:
    first = opened(folder)
    (folder / "0.txt").rename(folder / "zero.txt")
    assert opened(folder).fingerprints != first.fingerprints


def test_a_fingerprint_is_of_names_texts_and_where_they_end() -> None:
    variants = ([("a", b"bc")], [("ab", b"c")], [("b", b"bc")], [("a", b"b"), ("", b"c")])
    assert len({fingerprint(each)[0] for each in variants}) == 4


def test_glob_chooses_files_and_hidden_ones_are_left_out(folder: Path, opened: Open) -> None:
    first = opened(folder, glob="*.txt")
    (folder / "notes.md").write_bytes(b"\xff\xfe")
    (folder / ".git").mkdir()
    (folder / ".git" / "a.txt").write_bytes(b"\xff\xfe")
    assert opened(folder, glob="*.txt").fingerprints == first.fingerprints


def test_held_out_rows_belong_to_the_host(folder: Path, opened: Open) -> None:
    whole = opened(folder)
    host = opened(folder, rows=(2, 5))
    np.testing.assert_array_equal(host.held_out["tokens"], whole.held_out["tokens"][:, 2:5])
    np.testing.assert_array_equal(
        host.batch_at(0, 1)["tokens"], whole.batch_at(0, 1)["tokens"][:, 2:5]
    )


def test_a_models_vocabulary_may_be_larger_but_not_smaller(folder: Path, opened: Open) -> None:
    corpus = opened(folder)
    assert (corpus.check(None), corpus.check(300)) == (256, 300)
    with pytest.raises(UsageError, match=r"model\.vocab_size=255 .*256 or more"):
        corpus.check(255)


@pytest.mark.parametrize("tokenizer", [*TOKENIZERS])
def test_bytes_per_token_times_tokens_is_the_text(
    tokenizer: str, folder: Path, opened: Open
) -> None:
    size = 300 if tokenizer == "bpe" else None
    corpus = opened(folder, tokenizer=tokenizer, vocab_size=size)
    names = {each.name for each in split([Document(p.name) for p in folder.iterdir()], 0.1)[1]}
    text = sum((folder / name).stat().st_size + 1 for name in names)
    assert corpus.bytes_per_token * corpus.held_out_tokens == pytest.approx(text)


def _missing(root: Path) -> Path:
    return root / "nowhere"


def _empty(root: Path) -> Path:
    (root / "empty.txt").touch()
    return root / "empty.txt"


def _undecodable(root: Path) -> Path:
    (root / "latin.txt").write_bytes(b"caf\xe9 " * 9)
    return root / "latin.txt"


def _nul(root: Path) -> Path:
    (root / "nul.txt").write_bytes(b"abc\0def" * 99)
    return root / "nul.txt"


def _barren(root: Path) -> Path:
    (root / "barren").mkdir()
    (root / "barren" / ".hidden").write_text("text")
    return root / "barren"


def _blank(root: Path) -> Path:
    (root / "blank").mkdir()
    (root / "blank" / "a.txt").touch()
    return root / "blank"


def _tiny(root: Path) -> Path:
    (root / "tiny.txt").write_text("few words\n" * 9)
    return root / "tiny.txt"


def _one_byte(root: Path) -> Path:
    (root / "one.txt").write_text("a")
    return root / "one.txt"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_missing, r"data\.source=\S*nowhere is neither a file nor a folder; allowed: stdlib, syn"),
        (_empty, r"empty\.txt is empty; allowed"),
        (_undecodable, r"latin\.txt is not UTF-8 text: byte 3 can't be decoded"),
        (_nul, r"nul\.txt contains a NUL at byte 3; allowed"),
        (_barren, r"barren has no file that matches data\.glob=\*\*/\*"),
        (_blank, r"blank: all 1 files are empty"),
        (_tiny, r"the (training|held-out) part has \d+ tokens, but model\.context=16"),
        (_one_byte, r"one\.txt has 1 bytes; too few"),
    ],
)
def test_a_bad_source_is_refused_in_one_line(
    make: Callable[[Path], Path], message: str, tmp_path: Path, opened: Open
) -> None:
    with pytest.raises(UsageError, match=message) as error:
        opened(make(tmp_path))
    assert "\n" not in str(error.value)


def test_a_path_no_system_can_have_is_refused(opened: Open) -> None:
    with pytest.raises(UsageError, match=r"data\.source=x+: File name too long"):
        opened("x" * 5000)
    with pytest.raises(UsageError, match=r"data\.source=~no-such-user/a: "):
        opened("~no-such-user/a")


def test_a_pattern_that_is_none_is_refused(folder: Path, opened: Open) -> None:
    with pytest.raises(UsageError, match=r"data\.glob=\S+ (is no pattern|matches)|has no file"):
        opened(folder, glob="a**b/.")


def test_names_that_are_not_utf8_are_names_too(folder: Path, opened: Open) -> None:
    os.rename(folder / "3.txt", os.fsencode(folder) + b"/3\xff.txt")
    assert opened(folder).fingerprints


def test_a_misspelt_source_names_the_nearest(opened: Open) -> None:
    with pytest.raises(UsageError, match="did you mean stdlib"):
        opened("stdlb")


def test_a_byte_that_can_not_be_decoded_is_named_in_either_part(folder: Path, opened: Open) -> None:
    (folder / "7.txt").write_bytes(b"x" * 1000 + b"\xc3")
    with pytest.raises(UsageError, match=r"7\.txt is not UTF-8 text: byte 1000"):
        opened(folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, r"data\.batch_size=0; allowed: 1 or more"),
        ({"eval_batches": 0}, r"data\.eval_batches=0"),
        ({"held_out": 1.0}, r"data\.held_out=1\.0; allowed: above 0 and below 1"),
        ({"held_out": float("nan")}, r"data\.held_out=nan"),
        ({"source": " "}, r"data\.source is empty"),
        ({"source": "a\0b"}, r"data\.source contains a NUL"),
        ({"glob": "../*"}, r"data\.glob=\.\./\*; allowed: a pattern inside"),
        ({"glob": "/etc/*"}, r"data\.glob=/etc/\*"),
    ],
)
def test_a_bad_value_is_refused_when_the_config_is_made(options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        DataConfig(**options)


def test_the_cache_is_private_and_one_open_to_all_is_refused(
    folder: Path, opened: Open, tmp_path: Path
) -> None:
    opened(folder)
    assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o700
    (tmp_path / "cache").chmod(0o777)
    with pytest.raises(UsageError, match=r"data\.cache=\S* may be written by everyone"):
        opened(folder)


def test_a_cache_that_can_not_be_made_is_refused(folder: Path, opened: Open) -> None:
    with pytest.raises(UsageError, match=r"data\.cache=\S*0\.txt/cache can't be made"):
        opened(folder, cache=str(folder / "0.txt" / "cache"))
