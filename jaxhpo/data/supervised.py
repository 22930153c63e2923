"""A supervised corpus, opened: batches of examples as a pure function of seed and step."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxhpo.data.batches import shuffled
from jaxhpo.data.columns import Kind
from jaxhpo.data.config import DataConfig, ExamplesConfig
from jaxhpo.data.encoding import Arrays, encode_examples, encode_instructions
from jaxhpo.data.examples import Parts, read_examples
from jaxhpo.data.tokenizers import Tokenizer
from jaxhpo.errors import UsageError


@dataclass(frozen=True, eq=False)
class ExampleBatches:
    """Training batches of examples, arrays [N, ...].

    An epoch is a permutation of all examples: each comes once, and every epoch has its own order.
    A batch may hold the end of one epoch and the begin of the next. `shift` is how many batches
    further on the position is than the step. Raises UsageError for a batch larger than an epoch.
    """

    arrays: Mapping[str, np.ndarray]
    batch_size: int
    seed: int = 0
    shift: int = 0

    def __post_init__(self) -> None:
        if self.batch_size > self.examples:
            raise UsageError(
                f"data.batch_size={self.batch_size} is more than the training part has; allowed: "
                f"up to {self.examples}"
            )

    @property
    def examples(self) -> int:
        """Examples in one epoch."""
        return len(next(iter(self.arrays.values())))

    def batch_at(self, step: int, steps: int) -> Arrays:
        """Arrays [S, B, ...] of the `steps` steps from `step` on."""
        if step < 0 or steps < 0:
            raise ValueError(f"step={step} and steps={steps} must not be negative")
        begin = max(step + self.shift, 0)
        each = np.arange(begin, begin + steps, dtype=np.int64)[:, None]
        index = each * self.batch_size + np.arange(self.batch_size, dtype=np.int64)
        order, _ = shuffled(index, self.examples, self.seed)
        return {name: _as_input(array[order]) for name, array in self.arrays.items()}


@dataclass(frozen=True, eq=False)
class Supervised:
    """Examples as tokens. `held_out` is arrays [E, B, ...] with "weight" f32[E, B].

    The weight is zero for what fills the last batch up, and otherwise such that the mean of
    weight times loss over all of it is the mean loss over examples. `classes` are names by label.
    """

    kind: Kind
    train: ExampleBatches
    held_out: Arrays
    tokenizer: Tokenizer
    fingerprints: Mapping[str, str]
    classes: tuple[str, ...]
    held_out_examples: int
    texts: tuple[str, ...]
    """of the held-out examples that are scored, in order"""

    @property
    def train_examples(self) -> int:
        return self.train.examples

    @property
    def bytes_per_token(self) -> None:
        """Losses are per example, or per token of an answer: no text's length belongs to them."""

    def bits_per_byte(self, loss: float) -> None:
        del loss

    def check(self, vocab_size: int | None) -> int:
        """The model's vocabulary. Raises UsageError if ids exceed it."""
        highest = max(int(x["tokens"].max()) for x in (self.train.arrays, self.held_out))
        if vocab_size is None or highest < vocab_size:
            return self.tokenizer.vocab_size if vocab_size is None else vocab_size
        raise UsageError(
            f"the tokenizer gives the id {highest}, and the base has vocab_size={vocab_size}; "
            "allowed: the tokenizer that belongs to the base"
        )

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """Labels of the held-out examples in the order of their places in `held_out`, [n]."""
        return self.held_out["labels"].reshape(-1)[: self.held_out_examples]

    def baseline(self) -> tuple[str, float] | None:
        """Held-out loss of what looks at no text: the shares of the classes, or the mean number."""
        labels = self.train.arrays["labels"]
        if self.kind == "instructions":
            return None
        if self.kind == "regression":
            return "mean", float(np.mean((self.labels - labels.mean(dtype=np.float64)) ** 2))
        # one example more of each class, so that one that was never seen has a chance
        counts = np.bincount(labels, minlength=len(self.classes)) + 1.0
        return "class shares", float(-np.log(counts / counts.sum())[self.labels].mean())


def open_examples(
    data: DataConfig,
    examples: ExamplesConfig,
    kind: Kind,
    context: int,
    seed: int,
    tokenizer: Tokenizer,
    vocab: int,
) -> Supervised:
    """The examples that a config describes, cut to `context` tokens.

    At most `data.eval_batches` batches are held out, spread evenly over what there is. Raises
    UsageError for a source that can't be used, naming file and line where one is wrong.
    """
    data.refuse_several(f"task={kind}")
    parts = read_examples(data, examples, kind)
    encode: Any = encode_instructions if kind == "instructions" else encode_examples
    train = encode(tokenizer, parts.train, context, vocab)
    chosen, scored = _scored(parts, data.batch_size, data.eval_batches)
    held_out = encode(tokenizer, parts.held_out, context, vocab)
    if "token_types" in train or "token_types" in held_out:
        for arrays in (train, held_out):
            arrays.setdefault("token_types", np.zeros(arrays["tokens"].shape, np.uint8))
    return Supervised(
        kind=kind,
        train=ExampleBatches(train, data.batch_size, seed),
        held_out=_batched(held_out, chosen, scored),
        tokenizer=tokenizer,
        fingerprints={
            "data": parts.train.fingerprint,
            "held_out": parts.held_out.fingerprint,
            "tokenizer": tokenizer.fingerprint,
        },
        classes=parts.classes,
        held_out_examples=scored,
        texts=tuple(parts.held_out.texts[at] for at in chosen.ravel()[:scored]),
    )


def _scored(parts: Parts, batch_size: int, batches: int) -> tuple[np.ndarray, int]:
    """Which held-out examples are where, i64[E, B], and how many of these places count."""
    there = len(parts.held_out)
    batches = min(batches, -(-there // batch_size))
    count = min(there, batches * batch_size)
    places = np.zeros(batches * batch_size, np.int64)
    places[:count] = np.arange(count, dtype=np.int64) * there // count
    return places.reshape(batches, batch_size), count


def _batched(arrays: Arrays, chosen: np.ndarray, scored: int) -> Arrays:
    counts = (np.arange(chosen.size) < scored).reshape(chosen.shape)
    found = {name: _as_input(array[chosen]) for name, array in arrays.items()}
    if "mask" in found:
        found["mask"] = found["mask"] * counts[..., None].astype(np.float32)
    return {**found, "weight": counts * np.float32(chosen.size / scored)}


def _as_input(array: np.ndarray) -> np.ndarray:
    """Ids and labels as i32, numbers as f32."""
    return array.astype(np.float32 if array.dtype.kind == "f" else np.int32)
