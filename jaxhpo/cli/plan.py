"""`jaxhpo plan`: what a run will compile and how much memory it takes, before anything runs."""

from collections.abc import Sequence
from typing import Any

from jaxhpo.cli.options import parse
from jaxhpo.config.fields import suggest
from jaxhpo.config.run import KINDS, ForkRun, PbtRun, Run
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
              f"The options are those of the command: jaxhpo plan pbt --help")  # fmt: skip
        return 0 if argv else 2
    if argv[0] not in KINDS:
        raise UsageError(f"nothing to plan for {argv[0]}; {suggest(argv[0], KINDS)}")
    if argv[0] == ForkRun.command:
        from jaxhpo.cli.fork import asked

        print(plan(asked(argv[1:])))
        return 0
    print(plan(parse(KINDS[argv[0]], argv[1:], f"jaxhpo plan {argv[0]}")))
    return 0
