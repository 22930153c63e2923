"""Compiled decoding of one member: blocks of tokens for a batch of prompts, whole or streamed."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import jax
import numpy as np

from jaxhpo.errors import UsageError
from jaxhpo.nn import beam, decoding, filters
from jaxhpo.nn.beam import Found
from jaxhpo.nn.cache import empty_cache, laid_out, read, read_out
from jaxhpo.nn.config import BeamConfig, ModelConfig, SamplingConfig
from jaxhpo.nn.decoding import ABSENT, Written

SHORTEST = 16
"""Prompts are padded to a power of two, this one at least, so that few lengths are compiled."""

BLOCK = 16
"""Tokens of one dispatch when text is streamed."""

Beyond = Literal["slide", "stop"]


def sample(
    model: ModelConfig, params: Any, prompt: np.ndarray, length: int, temperature: float, seed: int
) -> np.ndarray:
    """`length` tokens i32 drawn after `prompt` i32[N], in one program; equal seeds, equal tokens.

    Past the model's context the text carries on from the last half of it.
    """
    rows = [SamplingConfig(temperature=temperature)]
    batch = padded([prompt], model)
    program = jax.jit(_whole, static_argnums=(0, 7, 8))
    written = program(
        model,
        _placed(params),
        *batch,
        filters.lower(rows),
        np.uint32([seed]),
        np.full(1, ABSENT, np.int32),
        length,
        capacity(model, batch[0].shape[1], length),
    )
    return np.asarray(written)[0]


def _whole(
    model: ModelConfig,
    params: Any,
    prompts: jax.Array,
    lengths: jax.Array,
    sampling: filters.Sampling,
    seeds: jax.Array,
    stops: jax.Array,
    length: int,
    room: int,
) -> jax.Array:
    texts, first = decoding.begin(
        model, params, prompts, lengths, sampling, seeds, stops, room, measured=False
    )
    slides = room == model.context
    _, rest = decoding.write(model, params, texts, length - 1, length - 1, slides)
    return jax.numpy.concatenate([first.tokens, rest.tokens], 1)


_begin = jax.jit(decoding.begin, static_argnums=(0, 7, 8))
_write = jax.jit(decoding.write, static_argnums=(0, 3, 5), donate_argnums=(2,))


_beams = jax.jit(beam.beam_search, static_argnums=(0, 5, 6))


@functools.partial(jax.jit, static_argnums=0)
def _next_logits(
    model: ModelConfig, params: Any, prompts: jax.Array, lengths: jax.Array
) -> jax.Array:
    cache = empty_cache(model, prompts.shape[0], prompts.shape[1], ragged=False)
    last, _ = read(model, params, prompts, lengths, cache)
    return read_out(model, params, last)[:, 0]


@jax.jit
def distributions(logits: jax.Array, sampling: filters.Sampling) -> jax.Array:
    """Probabilities f32[B, V] that rows of settings draw from, of the same logits f32[V]."""
    count = jax.tree.leaves(sampling)[0].shape[0]
    rows = jax.numpy.broadcast_to(logits, (count, logits.shape[0]))
    return jax.nn.softmax(filters.process(rows, sampling, None))


class Decoder:
    """A model's weights on the device, laid out for decoding, and its compiled programs.

    Two programs write any text: one reads prompts of a padded length, one adds a block of tokens.
    New prompts of that padded length, new values and new seeds compile nothing.
    """

    def __init__(self, model: ModelConfig, params: Any) -> None:
        check_causal(model)
        self.model, self.params = model, _placed(params)

    def stream(
        self,
        prompts: Sequence[Sequence[int]],
        rows: Sequence[SamplingConfig],
        seeds: Sequence[int],
        length: int,
        stops: Sequence[int] = (),
        beyond: Beyond = "slide",
        block: int = BLOCK,
        measured: bool = True,
    ) -> Iterator[Written]:
        """Blocks of `Written` (numpy) until every row has `length` tokens or has ended.

        Row i continues prompt i with settings i and seed i. A block is fetched while the device is
        busy with the next one. Where prompt and text exceed the context, a row slides (it carries
        on from the last half of its window) or stops there. Raises UsageError for prompts that
        can't be read.
        """
        batch = padded(prompts, self.model)
        room = capacity(self.model, batch[0].shape[1], length)
        slides = beyond == "slide" and room == self.model.context
        ends = np.asarray(stops or [ABSENT], np.int32)
        texts, written = _begin(
            self.model,
            self.params,
            *batch,
            filters.lower(rows),
            np.asarray(seeds, np.uint32),
            ends,
            room,
            measured,
        )
        left = length - 1
        while left > 0:
            before = written
            texts, written = _write(self.model, self.params, texts, block, np.int32(left), slides)
            fetched = _fetched(before)
            yield fetched
            left -= block
            if (fetched.tokens[:, -1] == ABSENT).all():
                return
        yield _fetched(written)

    def beams(
        self,
        prompts: Sequence[Sequence[int]],
        config: BeamConfig,
        length: int,
        stops: Sequence[int] = (),
    ) -> Found:
        """The `num_beams` likeliest texts of each prompt (numpy), of up to `length` tokens.

        Raises UsageError where prompt and text exceed the context: a beam can't slide.
        """
        tokens, lengths = padded(prompts, self.model)
        longest = int(lengths.max())
        if longest + length > self.model.context:
            raise UsageError(
                f"a prompt of {longest} tokens and {length} more exceed the model's context, "
                f"{self.model.context}; beams can't slide: at most "
                f"{self.model.context - longest} tokens"
            )
        ends = np.asarray(stops or [ABSENT], np.int32)
        found = _beams(
            self.model,
            self.params,
            tokens,
            lengths,
            ends,
            length,
            config,
            np.float32(config.length_penalty),
            np.float32(config.repetition_penalty),
        )
        return jax.tree.map(np.asarray, found)

    def next_logits(self, prompt: Sequence[int]) -> np.ndarray:
        """Logits f32[V] of the token that follows a prompt."""
        tokens, length = padded([prompt], self.model)
        return np.asarray(_next_logits(self.model, self.params, tokens, length))[0]

    def generate(self, *args: Any, **options: Any) -> Written:
        """All that `stream` gives, joined: [B, n] with n up to `length`."""
        return joined(self.stream(*args, **options))


def joined(blocks: Iterator[Written] | Sequence[Written]) -> Written:
    """Blocks one after another, without the columns in which every row has ended."""
    whole = jax.tree.map(lambda *parts: np.concatenate(parts, 1), *blocks)
    kept = int((whole.tokens != ABSENT).any(0).sum())
    return jax.tree.map(lambda x: x[:, :kept], whole)


def padded(prompts: Sequence[Sequence[int]], model: ModelConfig) -> tuple[np.ndarray, np.ndarray]:
    """Prompts i32[B, T] padded on the right, and their lengths: i32[B], or i32[] if all are equal.

    Raises UsageError for an empty prompt, one longer than the context, and a token that is none of
    the vocabulary.
    """
    lengths = [len(prompt) for prompt in prompts]
    size = min(max(SHORTEST, 1 << (max(lengths) - 1).bit_length()), model.context)
    tokens = np.zeros((len(prompts), max(size, 1)), np.int32)
    for row, prompt in zip(tokens, prompts, strict=True):
        check_prompt(prompt, model)
        row[: len(prompt)] = prompt
    equal = len(set(lengths)) == 1
    return tokens, np.asarray(lengths[0] if equal else lengths, np.int32)


def check_prompt(prompt: Sequence[int], model: ModelConfig) -> None:
    """Raises UsageError for a prompt that a model can't read."""
    if len(prompt) == 0:
        raise UsageError("the prompt is empty; give at least one token")
    if len(prompt) > model.context:
        raise UsageError(
            f"the prompt has {len(prompt)} tokens; allowed: up to the model's context, "
            f"{model.context}"
        )
    vocabulary = model.vocab_size or 0
    outside = [int(token) for token in prompt if not 0 <= token < vocabulary]
    if outside:
        raise UsageError(
            f"token {outside[0]} is not in the vocabulary; allowed: 0 to {vocabulary - 1}"
        )


def check_causal(model: ModelConfig) -> None:
    if model.attention == "bidirectional":
        raise UsageError("model.attention=bidirectional can't write text; train it causal")


def capacity(model: ModelConfig, prompt: int, length: int) -> int:
    """Slots of the cache: enough for prompt and text, in powers of two, up to the context."""
    return min(1 << (prompt + length - 1).bit_length(), model.context)


def _placed(params: Any) -> Any:
    """Parameters with a device array for each layer: cut on the host, which compiles nothing."""
    return jax.device_put(laid_out(jax.tree.map(np.asarray, params)))


def _fetched(written: Written) -> Written:
    return jax.tree.map(np.asarray, written)
