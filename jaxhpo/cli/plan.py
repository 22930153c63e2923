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


def plan(config: Run | None = None) -> Any:
    """The programs that a run compiles and the memory it takes, printable; nothing is run.

    Raises UsageError where it can't fit, with the option that would make it fit.
    """
    config = PbtRun() if config is None else config
    prepare_backend(config.execution, config.members)
    from jaxhpo.study import plan as look_ahead

    return look_ahead(config)


def main(argv: Sequence[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(f"usage: jaxhpo plan {{{','.join(KINDS)}}} [OPTIONS]\n\n{__doc__}\n\n"
              f"The options are those of the command: jaxhpo plan pbt --help.\n"
              f"--json prints JSON.")  # fmt: skip
        return 0 if argv else 2
    if argv[0] not in KINDS:
        raise UsageError(f"nothing to plan for {argv[0]}; {suggest(argv[0], KINDS)}")
    words = [word for word in argv[1:] if word != "--json"]
    if argv[0] == ForkRun.command:
        from jaxhpo.cli.fork import asked

        config = asked(words)
    else:
        config = parse(KINDS[argv[0]], words, f"jaxhpo plan {argv[0]} [--json]")
    found = plan(config)
    print(json.dumps(dataclasses.asdict(found)) if len(words) < len(argv) - 1 else found)
    return 0
