"""Samples and explanations as text for the terminal."""

import shutil
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jaxhpo.cli.tables import aligned

if TYPE_CHECKING:
    from jaxhpo.study.writing import Explanation, Sample, Writer

NARROWEST = 34
"""Characters of the narrowest column of text."""

GAP = "   "


def who(writer: "Writer") -> dict[str, Any]:
    """What wrote, as plain values; a folder that is no run has no trial and no step."""
    trained = writer.trained
    return {"run": str(trained.run), "trial": trained.trial, "step": trained.step}


def samples_table(found: Sequence["Sample"]) -> str:
    """One row a text: settings, mean log-probability, entropy, distinct-n and repetition."""
    names = ("", "tokens", "log-prob", "entropy", "distinct-1", "distinct-2", "repeated-4")
    rows = [names]
    for place, (each, label) in enumerate(zip(found, labels(found), strict=True)):
        entropy = "" if each.entropy is None else f"{each.entropy:.3f}"
        shares = (each.distinct_1, each.distinct_2, each.repetition_4)
        rows.append(
            (
                f"{place + 1}  {label}".rstrip(),
                str(len(each.tokens)),
                f"{each.log_prob:.3f}",
                entropy,
                *("" if share != share else f"{share:.2f}" for share in shares),
            )
        )
    return aligned(rows)


def labels(found: Sequence["Sample"]) -> list[str]:
    """What tells each sample from the others: the settings that differ, the seed, the prompt."""
    settings = [vars(each.settings) for each in found]
    names = [name for name in settings[0] if len({str(row[name]) for row in settings}) > 1]
    several = len({each.seed for each in found}) > 1
    prompts = len({each.prompt for each in found}) > 1
    return [
        "  ".join(
            [
                *(f"{name} {row[name]:g}" for name in names),
                *([f"seed {each.seed}"] if several else []),
                *([repr(textwrap.shorten(each.prompt, 24))] if prompts else []),
            ]
        )
        for each, row in zip(found, settings, strict=True)
    ]


def beside(found: Sequence["Sample"], width: int | None = None) -> str:
    """The texts in columns, as many as fit the terminal, under their numbers."""
    width = shutil.get_terminal_size((100, 24)).columns if width is None else width
    most = max(1, (width + len(GAP)) // (NARROWEST + len(GAP)))
    blocks = []
    named = list(enumerate(zip(found, labels(found), strict=True), 1))
    for start in range(0, len(named), most):
        some = named[start : start + most]
        column = (width - len(GAP) * (len(some) - 1)) // len(some)
        parts = [_column(f"{n}  {label}", each, column) for n, (each, label) in some]
        height = max(map(len, parts))
        padded = [part + [""] * (height - len(part)) for part in parts]
        lines = zip(*padded, strict=True)
        blocks.append(
            "\n".join(GAP.join(f"{cell:<{column}}" for cell in row).rstrip() for row in lines)
        )
    return "\n\n".join(blocks)


def _column(title: str, found: "Sample", width: int) -> list[str]:
    text = printable(f"{found.prompt}{found.text}")
    lines: list[str] = []
    for line in text.splitlines():
        pieces = [line[i : i + width] for i in range(0, len(line), width)]
        lines += pieces or [""]
    return [title.strip()[:width], "-" * width, *lines]


def printable(text: str) -> str:
    """The text without what would move a terminal's cursor or change its colours."""
    spaced = text.expandtabs(4)
    return "".join(char if char.isprintable() or char == "\n" else "·" for char in spaced)


def stable(text: str) -> str:
    """The part of a text that more bytes can't change: without the start of a character."""
    return text.rstrip("\ufffd")


def explanation_table(found: "Explanation") -> str:
    """The likeliest tokens at each temperature, and what each filter keeps."""
    head = ("next token", *(f"T={t:g}" for t in found.temperatures))
    rows = [head]
    for place, text in enumerate(found.texts):
        rows.append((text, *(f"{row[place]:.4f}" for row in found.chances)))
    rows.append(("entropy, nats", *(f"{value:.3f}" for value in found.entropies)))
    kept = [(f"filter at T={found.temperature:g}", "tokens kept", "of their mass")]
    kept += [
        (each.name, f"{each.count:,} of {found.vocabulary:,}", f"{each.mass:.1%}")
        for each in found.filters
    ]
    prompt = textwrap.shorten(repr(found.prompt), 90)
    return f"after {prompt}\n\n{aligned(rows)}\n\n{aligned(kept)}"
