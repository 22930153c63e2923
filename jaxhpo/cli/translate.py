"""`jaxhpo translate RUN`: translate with a run's model, and score it by BLEU."""

import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from jaxhpo.cli.options import parse
from jaxhpo.cli.positional import existing
from jaxhpo.cli.progress import progress
from jaxhpo.errors import UsageError
from jaxhpo.nn.config import BeamConfig
from jaxhpo.population.config import ExecutionConfig, prepare_backend

USAGE = "jaxhpo translate RUN"
SHOWN = 3
"""Translations that are printed of a part."""


@dataclass(frozen=True)
class TranslateQuery:
    """The best model of a run with data.languages, or any trial that a checkpoint of it holds,
    translates the test part of its data and is scored by BLEU; or it translates your own text."""

    text: tuple[str, ...] = ()
    """sentences to translate, in place of a part of the data"""
    part: str | None = None
    """part of the data: the name of its files or its split (default: the first that is named test,
    else the held-out one)"""
    most: int | None = None
    """pairs of the part, from its start (default: all)"""
    trial: int | None = None
    """trial to translate with (default: the best)"""
    num_beams: int = 1
    """texts followed at once by beam search; 1 is greedy"""
    length_penalty: float = 1.0
    """of beam search: above 0 favours long texts"""
    out: str | None = None
    """new file for the translations, one on a line"""
    json: bool = False
    """print JSON"""

    def __post_init__(self) -> None:
        if self.most is not None and self.most < 1:
            raise UsageError(f"most={self.most}; allowed: 1 or more")
        if self.text and (self.part is not None or self.most is not None):
            raise UsageError("text and a part of the data exclude each other; give one of the two")
        if self.out is not None and Path(self.out).exists():
            raise UsageError(f"out={self.out} exists; allowed: a new file")
        self.beams()

    def beams(self) -> BeamConfig:
        return BeamConfig(num_beams=self.num_beams, length_penalty=self.length_penalty)


@dataclass(frozen=True)
class Translated:
    """Translations, and their BLEU in points with sacrebleu's signature where references exist."""

    run: str
    trial: int | None
    step: int | None
    languages: str
    part: str | None
    sources: tuple[str, ...]
    texts: tuple[str, ...]
    references: tuple[str, ...] = ()
    bleu: float | None = None
    signature: str | None = None


def translate(run: Path | str, query: TranslateQuery | None = None) -> Translated:
    """Translates, and scores by BLEU what has a reference.

    Raises UsageError for a run that learnt something else, for a part that its data lacks, and
    where BLEU is wanted and sacrebleu is not installed.
    """
    query = TranslateQuery() if query is None else query
    prepare_backend(ExecutionConfig(), 1)
    from jaxhpo.data.pairs import part
    from jaxhpo.population.cache import use_compilation_cache
    from jaxhpo.study.translating import Translator, bleu, counter
    from jaxhpo.study.weights import load

    use_compilation_cache(ExecutionConfig())
    with progress("loading the model"):
        translator = Translator(load(run, query.trial))
    trained = translator.trained
    sources, references, name = query.text, (), None
    if not query.text:
        counter()  # whether BLEU can be counted is known before the work
        chosen = part(translator.data, query.part)
        pairs = list(itertools.islice(chosen.read(), query.most))
        sources, references = zip(*pairs, strict=True)
        name = chosen.name
    with progress("translating", len(sources)) as advance:
        texts = translator.translate(sources, query.beams(), advance)
    if query.out is not None:
        lines = "".join(f"{' '.join(text.split())}\n" for text in texts)
        Path(query.out).write_text(lines, encoding="utf-8")
    score = bleu(texts, references) if references else None
    return Translated(
        run=str(run),
        trial=trained.trial,
        step=trained.step,
        languages=translator.data.languages or "",
        part=name,
        sources=tuple(sources),
        texts=tuple(texts),
        references=references,
        bleu=None if score is None else score.bleu,
        signature=None if score is None else score.signature,
    )


def main(argv: Sequence[str]) -> int:
    if not argv or argv[0].startswith("-"):
        if "-h" in argv or "--help" in argv:
            parse(TranslateQuery, ["--help"], USAGE)
        raise UsageError(f"no run directory; usage: {USAGE} [OPTIONS]")
    run, query = existing(argv[0]), parse(TranslateQuery, argv[1:], USAGE)
    found = translate(run, query)
    if query.json:
        print(json.dumps(asdict(found)))
    elif query.text:
        print("\n".join(found.texts))
    else:
        for row in list(zip(found.sources, found.texts, found.references, strict=True))[:SHOWN]:
            print("source       {}\ntranslation  {}\nreference    {}\n".format(*row))
        print(
            f"trial {found.trial} at step {found.step}, {found.languages}, {len(found.texts)} "
            f"pairs of {found.part}\nBLEU {found.bleu:.2f}  ({found.signature})"
        )
    return 0
