"""Tokenizers: nothing is lost, nothing in a text is a separator, bad files are refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxhpo.data.cache import Cache
from jaxhpo.data.config import DataConfig
from jaxhpo.data.documents import Document
from jaxhpo.data.sources import SOURCES
from jaxhpo.data.tokenizers import TOKENIZERS, Bytes, Tokenizer, open_tokenizer
from jaxhpo.errors import UsageError

TRAIN = tuple(SOURCES["synthetic"]()[:12])
SIZE = 400
NO_CACHE = Cache(None)


def opened(name: str, cache: Cache = NO_CACHE) -> Tokenizer:
    size = SIZE if name == "bpe" else None
    return open_tokenizer(
        DataConfig(tokenizer=name, vocab_size=size), lambda: TRAIN, "fingerprint", cache
    )


MADE = {name: opened(name) for name in TOKENIZERS}
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@pytest.mark.parametrize("name", MADE)
@given(text=TEXTS)
@settings(max_examples=60, deadline=None)
def test_decoding_gives_the_text_back_to_the_byte(name: str, text: str) -> None:
    tokenizer = MADE[name]
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert ids.dtype.kind == "u" and (ids < tokenizer.vocab_size).all()
    assert tokenizer.separator not in ids and tokenizer.separator < tokenizer.vocab_size


@pytest.mark.parametrize("name", MADE)
def test_many_texts_are_encoded_like_each(name: str) -> None:
    texts = ["one", "", "two\r\n\n three", "é" * 100] * 40
    for many, text in zip(MADE[name].encode_many(texts), texts, strict=True):
        np.testing.assert_array_equal(many, MADE[name].encode(text))


@pytest.mark.parametrize("name", MADE)
def test_separators_are_left_out_of_decoded_text(name: str) -> None:
    tokenizer = MADE[name]
    ids = [*tokenizer.encode("one "), tokenizer.separator, *tokenizer.encode("two")]
    assert tokenizer.decode(ids) == "one two"


def test_bytes_refuse_a_text_with_nul_or_half_a_character() -> None:
    with pytest.raises(UsageError, match="contains NUL"):
        Bytes().encode("a\0b")
    with pytest.raises(UsageError, match="can't be encoded"):
        Bytes().encode("\ud800")
    assert Bytes().decode([0xE2, 0x82]) == "�"


def test_training_twice_gives_the_same_tokenizer() -> None:
    assert opened("bpe").fingerprint == MADE["bpe"].fingerprint
    assert MADE["bpe"].vocab_size == SIZE


def test_a_trained_tokenizer_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache.open(str(tmp_path))
    first = opened("bpe", cache)
    monkeypatch.setattr(Document, "read", lambda self: pytest.fail("trained again"))
    assert opened("bpe", cache).fingerprint == first.fingerprint


def tokenizer_file(folder: Path, change: dict) -> Path:
    """A tokenizer.json as others publish it: with a special token that ends a document."""
    engine = json.loads(opened("bpe").engine.to_str())
    token = {
        "id": 399, "content": "<|endoftext|>", "single_word": False, "lstrip": False,
        "rstrip": False, "normalized": False, "special": True,
    }  # fmt: skip
    engine["added_tokens"] = [{**token, **change}]
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(engine))
    return path


def test_a_file_brings_its_own_separator_which_no_text_can_spell(tmp_path: Path) -> None:
    tokenizer = opened(str(tokenizer_file(tmp_path, {})))
    assert (tokenizer.separator, tokenizer.vocab_size) == (399, 400)
    ids = tokenizer.encode("a <|endoftext|> b")
    assert 399 not in ids
    assert tokenizer.decode(ids) == tokenizer.decode([*ids, 399]) == "a <|endoftext|> b"


def test_ids_with_a_large_gap_are_refused(tmp_path: Path) -> None:
    engine = json.loads(opened("bpe").engine.to_str())
    engine["model"]["vocab"]["zz"] = 10**9
    (tmp_path / "t.json").write_text(json.dumps(engine))
    with pytest.raises(UsageError, match=r"ids up to 1000000000; allowed"):
        opened(str(tmp_path / "t.json"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{}", r"t\.json can't be read"),
        (b"\xff", r"is not UTF-8 at byte 0"),
        (b'{"model": {"type": "BPE", "vocab": {}, "merges"', r"t\.json can't be read"),
    ],
)
def test_a_file_that_is_no_tokenizer_is_refused(
    content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / "t.json").write_bytes(content)
    with pytest.raises(UsageError, match=message):
        opened(str(tmp_path / "t.json"))


def test_a_panic_inside_the_library_is_an_error_in_one_line(tmp_path: Path) -> None:
    """Panics derive from BaseException alone."""

    class Panic(BaseException):
        pass

    tokenizer = opened("bpe")

    class Broken:
        def encode_batch_fast(self, *_: object, **__: object) -> None:
            raise Panic("regex\nbacktrace")

    tokenizer.engine = Broken()
    with pytest.raises(UsageError, match=r"can't encode the text: regex$"):
        tokenizer.encode("a")


def test_a_file_too_large_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "t.json").open("wb") as file:
        file.truncate((64 << 20) + 1)
    with pytest.raises(UsageError, match="allowed: up to 64 MB"):
        opened(str(tmp_path / "t.json"))


def test_a_misspelt_tokenizer_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"data\.tokenizer=byts is not a file.*did you mean bytes"):
        opened("byts")


def test_a_path_no_system_can_have_is_refused() -> None:
    with pytest.raises(UsageError, match=r"data\.tokenizer=x+: File name too long"):
        opened("x" * 5000)


def test_a_vocabulary_below_the_bytes_is_refused() -> None:
    with pytest.raises(UsageError, match=r"data\.vocab_size=256; allowed: 257"):
        open_tokenizer(DataConfig(tokenizer="bpe", vocab_size=256), lambda: TRAIN, "", NO_CACHE)


def test_a_vocabulary_size_for_bytes_is_refused() -> None:
    with pytest.raises(UsageError, match=r"data\.vocab_size=300 is for data\.tokenizer=bpe only"):
        open_tokenizer(DataConfig(vocab_size=300), lambda: TRAIN, "", NO_CACHE)
