"""`jaxhpo plan`: what a run will compile and how much memory it takes, before anything runs."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from jaxhpo.cli.options import parse
from jaxhpo.config.fields import suggest
from jaxhpo.config.kinds import KINDS
from jaxhpo.config.run import ForkRun, PbtRun, Run
from jaxhpo.errors import UsageError
from jaxhpo.population.config import prepare_backend


def plan(config: Run | None = None, chip: str | None = None, chips: int | None = None) -> Any:
    """The programs that a run compiles, the memory it takes, and what every mesh of `chips` of the
    kind `chip` (default: the devices at hand) would take, printable; nothing is run.

    Raises UsageError where it can't fit, with the option that would make it fit.
    """
    config = PbtRun() if config is None else config
    prepare_backend(config.execution, config.members)
    from jaxhpo.study import plan as look_ahead

    return look_ahead(config, chip, chips)


def main(argv: Sequence[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(f"usage: jaxhpo plan {{{','.join(KINDS)}}} [OPTIONS]\n\n{__doc__}\n\n"
              f"The options are those of the command: jaxhpo plan pbt --help.\n"
              f"--chip NAME and --chips N compare the meshes of such chips; "
              f"--json prints JSON.")  # fmt: skip
        return 0 if argv else 2
    if argv[0] not in KINDS:
        raise UsageError(f"nothing to plan for {argv[0]}; {suggest(argv[0], KINDS)}")
    words = [word for word in argv[1:] if word != "--json"]
    is_json = len(words) < len(argv) - 1
    chip, chips = taken(words, "--chip"), taken(words, "--chips")
    if chips is not None and not (chips.isdecimal() and 0 < int(chips) <= MOST_CHIPS):
        raise UsageError(f"--chips {chips}; allowed: a whole number from 1 to {MOST_CHIPS}")
    if argv[0] == ForkRun.command:
        from jaxhpo.cli.fork import asked

        config = asked(words)
    else:
        config = parse(KINDS[argv[0]], words, f"jaxhpo plan {argv[0]} [--json]")
    found = plan(config, chip, None if chips is None else int(chips))
    print(json.dumps(dataclasses.asdict(found)) if is_json else found)
    return 0


MOST_CHIPS = 4096
"""Chips whose meshes are compared at most."""


def taken(words: list[str], option: str) -> str | None:
    """The value of an option, which is taken out of the words."""
    for at, word in enumerate(words):
        key, equals, value = word.partition("=")
        if key == option:
            if not equals and at + 1 == len(words):
                raise UsageError(f"{option} has no value")
            found = value if equals else words.pop(at + 1)
            del words[at]
            return found
    return None
