"""`jaxhpo sample RUN|FOLDER`: text from a model, or how its next token is chosen."""

import itertools
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jaxhpo.cli.explaining import show_explanation
from jaxhpo.cli.options import parse
from jaxhpo.cli.positional import existing
from jaxhpo.cli.progress import progress
from jaxhpo.cli.samples import beside, samples_table, stable, who
from jaxhpo.errors import UsageError
from jaxhpo.nn.config import BeamConfig, SamplingConfig
from jaxhpo.population.config import ExecutionConfig, prepare_backend

if TYPE_CHECKING:
    from jaxhpo.study.writing import Sample, Writer

USAGE = "jaxhpo sample RUN|FOLDER"
MOST_ROWS = 256
LONGEST_PROMPT = 1 << 24


@dataclass(frozen=True)
class SampleQuery(SamplingConfig):
    """Text from the best model of a run, from any trial that a checkpoint of it holds, or from a
    folder of the Hugging Face format.

    Numbers are traced: new ones, and a grid of them, are one compiled program.
    """

    prompt: tuple[str, ...] = ()
    """what the text continues; several are written side by side (default: standard input)"""
    prompt_file: str | None = None
    """file with the prompt"""
    ids: tuple[int, ...] = ()
    """the prompt as token ids"""
    trial: int | None = None
    """trial to write with (default: the best)"""
    adapter: str | None = None
    """adapter folder in PEFT's format, for a Hugging Face folder"""
    tokens: int = 200
    """most tokens to write"""
    samples: int = 1
    """texts for each prompt, with seeds that count up"""
    seed: int = 0
    """of the first text; equal seeds and settings give equal texts, whatever is beside them"""
    grid: tuple[str, ...] = ()
    """settings to compare, such as temperature=0.2,0.7,1.2 top_p=0.8,0.95: all combinations"""
    num_beams: int = 1
    """texts followed at once by beam search; 1 draws instead"""
    length_penalty: float = 1.0
    """of beam search: above 0 favours long texts"""
    early_stopping: Literal["false", "true", "never"] = "false"
    """of beam search: when num_beams texts have ended (true), or none can become better, by an
    estimate (false) or for sure (never)"""
    stop: tuple[str, ...] = ()
    """texts, of one token each, that end a text"""
    past_end: bool = False
    """write on where a document ends"""
    beyond: Literal["slide", "stop"] = "slide"
    """where a text fills the model's context: carry on from its last half, or stop there"""
    explain: str | None = None
    """show what the token after this prompt is drawn from, and what each filter keeps"""
    temperatures: tuple[float, ...] = (0.2, 0.7, 1.0, 1.2)
    """temperatures that are explained"""
    figure: str | None = None
    """PNG file of the explanation (default: explain.png in a run's report folder)"""
    json: bool = False
    """print JSON"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.samples <= MOST_ROWS:
            raise UsageError(f"samples={self.samples}; allowed: 1 to {MOST_ROWS}")
        if not 0 <= self.seed < 1 << 32:
            raise UsageError(f"seed={self.seed}; allowed: 0 to {(1 << 32) - 1}")
        if self.tokens < 1:
            raise UsageError(f"tokens={self.tokens}; allowed: 1 or more")
        if self.num_beams > 1 and (self.grid or self.samples > 1 or self.greedy):
            raise UsageError(
                f"num_beams={self.num_beams} draws nothing; allowed: without grid, samples, greedy"
            )
        if sum(map(bool, (self.prompt, self.prompt_file, self.ids))) > 1:
            raise UsageError("prompt, prompt_file and ids are three ways to say one thing; use one")
        for temperature in self.temperatures:
            replace(SamplingConfig(), temperature=temperature)
        if not self.temperatures:
            raise UsageError("temperatures is empty; allowed: one or more")
        self.beams()
        self.settings()

    def beams(self) -> BeamConfig:
        return BeamConfig(
            self.num_beams, self.length_penalty, self.early_stopping, self.repetition_penalty
        )

    def settings(self) -> tuple[SamplingConfig, ...]:
        """The settings asked for: those of the grid, in the order of its names."""
        names = [field.name for field in fields(SamplingConfig)]
        plain = SamplingConfig(**{name: getattr(self, name) for name in names})
        axes = [_axis(text) for text in self.grid]
        given = [name for name, _ in axes]
        if twice := {name for name in given if given.count(name) > 1}:
            raise UsageError(f"grid names {', '.join(sorted(twice))} twice; allowed: once")
        rows = itertools.product(*(values for _, values in axes))
        return tuple(replace(plain, **dict(zip(given, row, strict=True))) for row in rows)


NUMBERS: dict[str, Any] = {
    "temperature": float,
    "top_k": int,
    "top_p": float,
    "min_p": float,
    "repetition_penalty": float,
}
"""What a grid may vary, and how its values are read."""


def _axis(text: str) -> tuple[str, list[Any]]:
    name, equals, values = text.partition("=")
    name = name.replace("-", "_")
    if name not in NUMBERS or not equals:
        raise UsageError(f"grid={text}; allowed: NAME=VALUE,VALUE with {', '.join(NUMBERS)}")
    try:
        return name, [NUMBERS[name](value) for value in values.split(",")]
    except ValueError:
        raise UsageError(f"grid={text}; allowed: numbers after {name}=, with commas") from None


def sample(run: "Path | str", query: SampleQuery | None = None) -> "tuple[Sample, ...]":
    """Texts from a run's or a folder's model: for each prompt, setting of the grid and seed.

    Raises UsageError for a run without a model, and for a prompt or setting that is not allowed.
    """
    query = SampleQuery() if query is None else query
    writer = open_writer(Path(run), query.trial, query.adapter)
    prompts = prompts_of(query, writer)
    return tuple(write(writer, query, prompts, lambda block: None))


def main(argv: Sequence[str]) -> int:
    if not argv or argv[0].startswith("-"):
        if "-h" in argv or "--help" in argv:
            parse(SampleQuery, ["--help"], USAGE)
        raise UsageError(f"no run directory; usage: {USAGE} [OPTIONS]")
    run = existing(argv[0])
    query = parse(SampleQuery, argv[1:], USAGE)
    with progress("loading the model"):
        writer = open_writer(run, query.trial, query.adapter)
    if query.explain is not None:
        (settings, *more) = query.settings()
        if more:
            raise UsageError("explain shows one setting; allowed: without grid")
        ids = query.ids or writer.read(query.explain)
        figure = None if query.figure is None else Path(query.figure)
        return show_explanation(writer, ids, settings, query.temperatures, figure, query.json)
    prompts = prompts_of(query, writer)
    if not query.json and query.num_beams == 1 and len(rows_of(query, prompts)) == 1:
        return show_stream(writer, query, prompts)
    done = query.tokens * len(rows_of(query, prompts)) if query.num_beams == 1 else None
    with progress("writing", done) as advance:
        found = write(writer, query, prompts, advance)
    if query.json:
        print(json.dumps({**who(writer), "samples": [as_dict(each) for each in found]}))
    else:
        print(f"{samples_table(found)}\n\n{beside(found)}")
    return 0


def open_writer(run: Path, trial: int | None, adapter: str | None = None) -> "Writer":
    """The model of a run, ready to write. The backend is set up before JAX is imported."""
    prepare_backend(ExecutionConfig(), 1)
    from jaxhpo.population.cache import use_compilation_cache
    from jaxhpo.study.weights import load
    from jaxhpo.study.writing import Writer

    use_compilation_cache(ExecutionConfig())
    return Writer(load(run, trial, adapter))


def prompts_of(query: SampleQuery, writer: "Writer") -> list[tuple[int, ...]]:
    """The prompts as token ids."""
    if query.ids:
        return [query.ids]
    if query.prompt_file is not None:
        return [writer.read(_file(query.prompt_file))]
    if query.prompt:
        return [writer.read(_standard_input() if p == "-" else p) for p in query.prompt]
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError("prompt is not given; allowed: --prompt TEXT, --prompt-file, or a pipe")
    return [writer.read(_standard_input())]


def _standard_input() -> str:
    try:
        return sys.stdin.read(LONGEST_PROMPT)
    except UnicodeDecodeError as error:
        raise UsageError(f"standard input is not UTF-8 (byte {error.start})") from None


def _file(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read(LONGEST_PROMPT)
    except OSError as error:
        raise UsageError(f"prompt_file={path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"prompt_file={path} is not UTF-8 (byte {error.start})") from None


Row = tuple[tuple[int, ...], SamplingConfig, int]


def rows_of(query: SampleQuery, prompts: Sequence[tuple[int, ...]]) -> list[Row]:
    """A row for each prompt, setting and seed; settings that are compared share their seeds."""
    seeds = [(query.seed + i) % (1 << 32) for i in range(query.samples)]
    rows = list(itertools.product(prompts, query.settings(), seeds))
    if len(rows) > MOST_ROWS:
        raise UsageError(f"{len(rows)} texts at once; allowed: {MOST_ROWS}")
    return rows


def write(writer: "Writer", query: SampleQuery, prompts: Any, advance: Any) -> "list[Sample]":
    """All texts that are asked for; `advance` is told of tokens as they come."""
    stops = writer.stops(query.stop, query.past_end)
    if query.num_beams > 1:
        return writer.beams(prompts, query.beams(), query.tokens, stops)
    from jaxhpo.population.decoding import joined

    rows = rows_of(query, prompts)
    prompts, settings, seeds = zip(*rows, strict=True)
    blocks = []
    for block in writer.stream(prompts, settings, seeds, query.tokens, stops, query.beyond):
        blocks.append(block)
        advance(int((block.tokens >= 0).sum()))
    return writer.samples(prompts, settings, seeds, joined(blocks))


def show_stream(writer: "Writer", query: SampleQuery, prompts: Any) -> int:
    """Prints one text as it is written, then its numbers to the error stream."""
    from jaxhpo.population.decoding import joined

    (prompt, settings, seed), *_ = rows_of(query, prompts)
    stops = writer.stops(query.stop, query.past_end)
    blocks = []
    stream = writer.stream([prompt], [settings], [seed], query.tokens, stops, query.beyond)
    with progress("compiling"):
        first = next(stream)
    decode = writer.trained.tokenizer.decode
    sys.stdout.write(decode(prompt))
    shown = ""
    for block in itertools.chain([first], stream):
        blocks.append(block)
        ids = [token for each in blocks for token in each.tokens[0] if token >= 0]
        text = stable(decode(ids))
        sys.stdout.write(text[len(shown) :])
        sys.stdout.flush()
        shown = text
    (found,) = writer.samples([prompt], [settings], [seed], joined(blocks))
    sys.stdout.write(found.text[len(shown) :] + "\n")
    sys.stdout.flush()
    print(f"\n{samples_table([found])}", file=sys.stderr)
    return 0


def as_dict(found: "Sample") -> dict[str, Any]:
    """A sample as plain values; a number that is none is null."""
    return {name: _sound(value) for name, value in asdict(found).items()}


def _sound(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
