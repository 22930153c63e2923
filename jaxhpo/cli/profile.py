"""`jaxhpo profile`: a trace of a few steps, and what the compiler says that each program costs."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jaxhpo.cli.options import parse
from jaxhpo.cli.plan import taken
from jaxhpo.cli.positional import existing
from jaxhpo.config.kinds import KINDS
from jaxhpo.config.run import ForkRun, PbtRun, Run
from jaxhpo.errors import UsageError
from jaxhpo.population.config import prepare_backend

if TYPE_CHECKING:
    from jaxhpo.study.profiling import Profile

USAGE = f"""usage: jaxhpo profile {{{",".join(KINDS)}}} [OPTIONS]
       jaxhpo profile RUN [OPTIONS]

{__doc__}

The first trains, from scratch, what the command would train first, and writes to a new directory;
the second what RUN's config says, and writes to RUN/profile. The options of a command are its own:
jaxhpo profile pbt --help.

  --trace-steps N  steps that are traced, after as many that are not (default: 5)
  --json           print the numbers as JSON"""


def profile(run: Run | Path | str | None = None, steps: int = 5) -> "Profile":
    """Traces a few steps of a config, or of a run directory's config; printable.

    Raises UsageError for what can't run.
    """
    run = PbtRun() if run is None else run
    if isinstance(run, Run):
        prepare_backend(run.execution, run.members)
    from jaxhpo.study.profiling import profile as trace

    return trace(run, steps)


def main(argv: Sequence[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if argv else 2
    words = list(argv[1:])
    steps = _steps(taken(words, "--trace-steps") or "5")
    plain = [word for word in words if word != "--json"]
    if argv[0] == ForkRun.command:
        from jaxhpo.cli.fork import asked

        found = profile(asked(plain), steps)
    elif argv[0] in KINDS:
        found = profile(parse(KINDS[argv[0]], plain, f"jaxhpo profile {argv[0]}"), steps)
    else:
        if plain:
            raise UsageError(f"unexpected {plain[0]}; the config is that of the run {argv[0]}")
        found = profile(existing(argv[0]), steps)
    print(json.dumps(found.as_dict()) if len(plain) < len(words) else found)
    return 0


def _steps(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 10_000:
        raise UsageError(f"--trace-steps {text}; allowed: 1 to 10000")
    return int(text)
