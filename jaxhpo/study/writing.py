"""Text from a trained model, with what is worth knowing about it; and one token, explained."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jaxhpo.data.encoding import opening_of
from jaxhpo.errors import UsageError
from jaxhpo.nn import filters
from jaxhpo.nn.config import BeamConfig, SamplingConfig
from jaxhpo.nn.decoding import ABSENT, Written
from jaxhpo.nn.diversity import distinct, repetition
from jaxhpo.population.decoding import Beyond, Decoder, distributions
from jaxhpo.study.weights import Trained

MOST_TOKENS = 1 << 20


@dataclass(frozen=True)
class Sample:
    """A text and its numbers. `log_prob` is the mean log-probability that the model itself gave
    its tokens; `entropy` the mean entropy of what they were drawn from, both in nats."""

    prompt: str
    text: str
    tokens: tuple[int, ...]
    settings: SamplingConfig | BeamConfig
    seed: int | None
    log_prob: float
    entropy: float | None
    distinct_1: float
    distinct_2: float
    repetition_4: float


class Writer:
    """A trained model that writes; its weights are on the device once, for all that is asked."""

    def __init__(self, trained: Trained) -> None:
        self.trained = trained
        self.decoder = Decoder(trained.model, trained.params)

    def read(self, text: str) -> tuple[int, ...]:
        """A prompt's token ids, with what the tokenizer's template puts before a text. Raises
        UsageError where the model has no such text."""
        return *opening_of(self.trained.tokenizer), *self._ids(text)

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(int(token) for token in self.trained.tokenizer.encode(text))

    def stops(self, texts: Sequence[str], past_end: bool) -> tuple[int, ...]:
        """Ids that end a text: that of a document's end, unless not wanted, and of `texts`."""
        found = [] if past_end else [self.trained.tokenizer.separator]
        for text in texts:
            ids = self._ids(text)
            if len(ids) != 1:
                raise UsageError(f"stop={text!r} is {len(ids)} tokens; allowed: text of one token")
            found += ids
        return tuple(token for token in found if token < (self.trained.model.vocab_size or 0))

    def stream(
        self,
        prompts: Sequence[Sequence[int]],
        rows: Sequence[SamplingConfig],
        seeds: Sequence[int],
        length: int,
        stops: Sequence[int],
        beyond: Beyond = "slide",
    ) -> Iterator[Written]:
        """Blocks of tokens, as they are written; see `Decoder.stream`."""
        check_length(length)
        for block in self.decoder.stream(prompts, rows, seeds, length, stops, beyond):
            if np.isnan(np.asarray(block.log_probs)[block.tokens != ABSENT]).any():
                raise UsageError(
                    f"{self.trained.name} gives no finite probabilities: it has diverged"
                )
            yield block

    def beams(
        self,
        prompts: Sequence[Sequence[int]],
        config: BeamConfig,
        length: int,
        stops: Sequence[int],
    ) -> list[Sample]:
        """The best text of each prompt. Its `log_prob` is that of the whole text over its length,
        after any repetition penalty."""
        check_length(length)
        found = self.decoder.beams(prompts, config, length, stops)
        samples = []
        for prompt, tokens, score in zip(
            prompts, found.tokens[:, 0], found.scores[:, 0], strict=True
        ):
            count = int((tokens != ABSENT).sum())
            mean = float(score) * count**config.length_penalty / count
            samples.append(self._sample(prompt, tokens, config, None, mean, None))
        return samples

    def samples(
        self,
        prompts: Sequence[Sequence[int]],
        rows: Sequence[SamplingConfig],
        seeds: Sequence[int],
        written: Written,
    ) -> list[Sample]:
        """What was written, row by row."""
        found = []
        for row, prompt in enumerate(prompts):
            real = written.tokens[row] != ABSENT
            mean = lambda values, row=row, real=real: float(values[row][real].mean())
            found.append(
                self._sample(
                    prompt,
                    written.tokens[row],
                    rows[row],
                    seeds[row],
                    mean(written.log_probs),
                    mean(written.entropies),
                )
            )
        return found

    def _sample(
        self,
        prompt: Sequence[int],
        tokens: np.ndarray,
        settings: Any,
        seed: int | None,
        log_prob: float,
        entropy: float | None,
    ) -> Sample:
        kept = tuple(int(token) for token in tokens if token != ABSENT)
        decode = self.trained.tokenizer.decode
        return Sample(
            decode(prompt),
            decode(kept),
            kept,
            settings,
            seed,
            log_prob,
            entropy,
            distinct(kept, 1),
            distinct(kept, 2),
            repetition(kept),
        )


def check_length(length: int) -> None:
    if not 1 <= length <= MOST_TOKENS:
        raise UsageError(f"tokens={length}; allowed: 1 to {MOST_TOKENS}")


@dataclass(frozen=True)
class Explanation:
    """The next token's distribution at several temperatures, and what each filter keeps of it.

    `chances` [T, N] are those of the N likeliest tokens; each filter has the probabilities [N] that
    it leaves at `temperature`, how many tokens it keeps of all, and the mass that they had.
    """

    prompt: str
    tokens: tuple[int, ...]
    texts: tuple[str, ...]
    temperatures: tuple[float, ...]
    temperature: float
    chances: np.ndarray
    entropies: tuple[float, ...]
    filters: tuple["Kept", ...]
    vocabulary: int


@dataclass(frozen=True)
class Kept:
    """One filter, or all together, at the temperature asked for."""

    name: str
    chances: np.ndarray
    count: int
    mass: float


def explain(
    writer: Writer,
    prompt: Sequence[int],
    settings: SamplingConfig,
    temperatures: Sequence[float],
    most: int = 12,
) -> Explanation:
    """What the next token after a prompt is drawn from: one program, a row a temperature or filter.

    Raises UsageError for a prompt that can't be read.
    """
    logits = writer.decoder.next_logits(prompt)
    if not np.isfinite(logits).all():
        raise UsageError(f"{writer.trained.name} gives no finite probabilities: it has diverged")
    plain = replace(SamplingConfig(), temperature=settings.temperature)
    shown = _shown(settings)
    alone = [
        (f"{name} {value:g}", replace(plain, **{name: value})) for name, value in shown.items()
    ]
    named = [("temperature alone", plain), *alone, ("all together", replace(plain, **shown))]
    hot = [replace(plain, temperature=t) for t in temperatures]
    rows = [*hot, *(each for _, each in named)]
    found = np.asarray(distributions(logits, filters.lower(rows)), np.float64)
    order = np.argsort(-logits, kind="stable")[:most]
    plain_chances = found[len(hot)]
    kept = tuple(
        Kept(name, row[order], int((row > 0).sum()), float(plain_chances[row > 0].sum()))
        for (name, _), row in zip(named, found[len(hot) :], strict=True)
    )
    decode = writer.trained.tokenizer.decode
    return Explanation(
        prompt=decode(prompt),
        tokens=tuple(int(token) for token in order),
        texts=tuple(_spelled(decode([int(token)])) for token in order),
        temperatures=tuple(temperatures),
        temperature=settings.temperature,
        chances=found[: len(hot), order],
        entropies=tuple(float(-(r[r > 0] * np.log(r[r > 0])).sum()) for r in found[: len(hot)]),
        filters=kept,
        vocabulary=logits.size,
    )


def _shown(settings: SamplingConfig) -> dict[str, float]:
    """The filters to show: those that are set, else usual values of each."""
    values = {"top_k": settings.top_k, "top_p": settings.top_p, "min_p": settings.min_p}
    unset = {"top_k": 0, "top_p": 1.0, "min_p": 0.0}
    used = {name: value for name, value in values.items() if value != unset[name]}
    return used or {"top_k": 40, "top_p": 0.9, "min_p": 0.1}


def _spelled(text: str) -> str:
    """A token so that spaces and line ends show."""
    return repr(text) if text else "(end)"
