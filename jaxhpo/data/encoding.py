"""Examples as rows of token ids of one length, padded on the right."""

from collections.abc import Sequence

import numpy as np

from jaxhpo.data.examples import Examples
from jaxhpo.data.subwords import Subwords
from jaxhpo.data.tokenizers import Tokenizer
from jaxhpo.errors import UsageError

Arrays = dict[str, np.ndarray]


def encode_examples(tokenizer: Tokenizer, examples: Examples, length: int, vocab: int) -> Arrays:
    """`{"tokens": u[N, T], "lengths": i32[N], "labels": [N]}` of texts, cut to `length` tokens.

    A tokenizer with a template of its own (BERT's, Llama's) puts its special tokens in and tells
    the segments of a pair apart: "token_types" u8[N, T], where it does. Else the separator ends
    each text, if the model's `vocab` has it. Of two texts the longer one is cut.
    """
    templated = isinstance(tokenizer, Subwords) and tokenizer.templated
    if isinstance(tokenizer, Subwords) and templated:
        ids, types = tokenizer.encode_templated(examples.texts, examples.pairs, length)
    else:
        ids, types = _joined(tokenizer, examples, length, vocab), None
    found = {"tokens": _padded(ids, length, tokenizer), "lengths": _lengths(ids)}
    if types is not None and any(any(row) for row in types):
        found["token_types"] = _filled(types, length, np.uint8)
    return {**found, "labels": np.asarray(examples.labels)}


def encode_instructions(
    tokenizer: Tokenizer, examples: Examples, length: int, vocab: int
) -> Arrays:
    """`{"tokens": u[N, T], "labels": u[N, T], "mask": f32[N, T]}`: each token's next one is its
    label, and the mask is one where that is of the answer or ends it.

    What the tokenizer's template puts before a text stands first. Between prompt and answer is a
    line end. A prompt that is too long loses its beginning, and only an answer that is too long by
    itself its end.
    """
    end = [tokenizer.separator] if tokenizer.separator < vocab else []
    opening = opening_of(tokenizer)
    answers = list(tokenizer.encode_many(list(examples.labels)))
    rows, masks = [], []
    for at, prompt in enumerate(tokenizer.encode_many([f"{text}\n" for text in examples.texts])):
        answer = [*answers[at].tolist(), *end][: length - len(opening)]
        kept = [*opening, *prompt.tolist()[-(length + 1 - len(opening) - len(answer)) :]]
        rows.append([*kept, *answer])
        masks.append([0] * (len(kept) - 1) + [1] * len(answer))
    whole = _filled(rows, length + 1, tokenizer_dtype(tokenizer))
    return {
        "tokens": whole[:, :-1],
        "labels": whole[:, 1:],
        "mask": _filled(masks, length, np.float32),
    }


def opening_of(tokenizer: Tokenizer) -> list[int]:
    """Ids that stand before every text, where the tokenizer's template says so."""
    return list(tokenizer.opening) if isinstance(tokenizer, Subwords) else []


def tokenizer_dtype(tokenizer: Tokenizer) -> np.dtype:
    return np.dtype(np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32)


def _joined(tokenizer: Tokenizer, examples: Examples, length: int, vocab: int) -> list[list[int]]:
    end = [tokenizer.separator] if tokenizer.separator < vocab else []
    first = [each.tolist() for each in tokenizer.encode_many(list(examples.texts))]
    if examples.pairs is None:
        return _checked([[*row[: length - len(end)], *end] for row in first])
    room = length - 2 * len(end)
    rows = []
    for row, other in zip(first, tokenizer.encode_many(list(examples.pairs)), strict=True):
        one, two = _cut(len(row), len(other), room)
        rows.append([*row[:one], *end, *other.tolist()[:two], *end])
    return _checked(rows)


def _cut(first: int, second: int, room: int) -> tuple[int, int]:
    """How many tokens of two texts are kept: the longer one is cut first."""
    if first + second <= room:
        return first, second
    half = room // 2
    if first <= half:
        return first, room - first
    return (room - second, second) if second <= room - half else (half, room - half)


def _checked(rows: list[list[int]]) -> list[list[int]]:
    """An empty text without an end token would leave nothing to look at."""
    return [row or [0] for row in rows]


def _padded(rows: Sequence[Sequence[int]], length: int, tokenizer: Tokenizer) -> np.ndarray:
    if length < 4:
        raise UsageError(f"model.context={length} is too short for examples; allowed: 4 or more")
    return _filled(rows, length, tokenizer_dtype(tokenizer))


def _lengths(rows: Sequence[Sequence[int]]) -> np.ndarray:
    return np.asarray([len(row) for row in rows], np.int32)


def _filled(rows: Sequence[Sequence[int]], length: int, dtype: np.dtype | type) -> np.ndarray:
    """Rows in one array, zeros behind them."""
    whole = np.zeros((len(rows), length), dtype)
    for at, row in enumerate(rows):
        whole[at, : len(row)] = row
    return whole
