"""Translations by a run's best model, and how near they come to a person's."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from jaxhpo.errors import UsageError
from jaxhpo.nn.config import BeamConfig, SamplingConfig
from jaxhpo.population.decoding import SHORTEST, Decoder
from jaxhpo.study.weights import Trained

TOGETHER = 64
"""Sentences of one batch."""

GREEDY = SamplingConfig(greedy=True)


@dataclass(frozen=True)
class Score:
    """Corpus BLEU in points, 0 to 100, and sacrebleu's signature of how it was counted."""

    bleu: float
    signature: str


class Translator:
    """A trained model that translates, its weights on the device once.

    Raises UsageError for a model that was trained on something else.
    """

    def __init__(self, trained: Trained) -> None:
        if trained.config is None or trained.config.data.languages is None:
            raise UsageError(
                f"{trained.run} has not learnt to translate; allowed: a run with data.languages"
            )
        self.trained, self.data = trained, trained.config.data
        self.decoder = Decoder(trained.model, trained.params)
        self.longest = max(1, trained.model.context // 2)

    def translate(
        self,
        sources: Sequence[str],
        beams: BeamConfig,
        advance: Callable[[int], None] = lambda done: None,
    ) -> list[str]:
        """A translation of each sentence: greedy, or the best of several beams.

        A source longer than half the context loses its end. `advance` is told how many more are
        done. Raises UsageError for an empty sentence.
        """
        prompts = [self._prompt(source) for source in sources]
        found = [""] * len(prompts)
        for room, places in self._batches(prompts):
            # the last batch of a kind is filled up with its first sentence: one size is compiled
            rows = [prompts[at] for at in places]
            rows += rows[:1] * (_size(len(prompts)) - len(rows))
            tokens = self._written(rows, self.trained.model.context - room, beams)
            for at, row in zip(places, tokens, strict=False):
                found[at] = self.trained.tokenizer.decode([int(t) for t in row if t >= 0])
            advance(len(places))
        return found

    def _prompt(self, source: str) -> list[int]:
        if not source.strip():
            raise UsageError("a sentence to translate is empty; give some text")
        tokenizer = self.trained.tokenizer
        return [*tokenizer.encode(source).tolist()[: self.longest - 1], tokenizer.separator]

    def _batches(self, prompts: Sequence[Sequence[int]]) -> Iterator[tuple[int, list[int]]]:
        """Places of prompts that are padded alike, and to what; each such kind is a program."""
        kinds: dict[int, list[int]] = {}
        for at, prompt in enumerate(prompts):
            size = 1 << (len(prompt) - 1).bit_length()
            kinds.setdefault(max(size, min(SHORTEST, self.longest)), []).append(at)
        for size, places in sorted(kinds.items()):
            for start in range(0, len(places), _size(len(prompts))):
                yield size, places[start : start + _size(len(prompts))]

    def _written(self, rows: list[list[int]], length: int, beams: BeamConfig) -> Any:
        """Tokens i32[B, n], negative behind the end of a text."""
        stops = [self.trained.tokenizer.separator]
        if beams.num_beams > 1:
            return self.decoder.beams(rows, beams, length, stops).tokens[:, 0]
        settings, seeds = [GREEDY] * len(rows), [0] * len(rows)
        return self.decoder.generate(
            rows, settings, seeds, length, stops, beyond="stop", measured=False
        ).tokens


def counter() -> Any:
    """sacrebleu's BLEU with its defaults. Raises UsageError where it is not installed."""
    try:
        from sacrebleu.metrics.bleu import BLEU
    except ImportError:
        raise UsageError(
            "BLEU is counted by sacrebleu, which is not installed: pip install sacrebleu"
        ) from None
    return BLEU()


def bleu(texts: Sequence[str], references: Sequence[str]) -> Score:
    """Corpus BLEU by sacrebleu: one reference each, cased, tokenized by 13a.

    Sources: Papineni et al. 2002; Post 2018 (arXiv 1804.08771).
    """
    metric = counter()
    found = metric.corpus_score(list(texts), [list(references)])
    return Score(found.score, str(metric.get_signature()))


def _size(sentences: int) -> int:
    """Rows of a batch: a power of two, so that few sizes are compiled."""
    return min(TOGETHER, 1 << max(sentences - 1, 0).bit_length())
