"""The command `jaxhpo`: a table of commands, and what a person reads when one fails."""

import errno
import importlib
import os
import sys
import traceback
from collections.abc import Sequence

from jaxhpo.errors import Diverged, Interrupted, Lost, UsageError

COMMANDS = {
    "pbt": ("jaxhpo.cli.pbt", "train a population and tune its hyperparameters while it trains"),
    "search": (
        "jaxhpo.cli.search",
        "search by any scheduler: ASHA, Hyperband, TPE, grid, two-stage and more",
    ),
    "train": (
        "jaxhpo.cli.train",
        "train one model, on a schedule that a population found or your own",
    ),
    "finetune": (
        "jaxhpo.cli.finetune",
        "fine-tune a pretrained base: adapters or all weights, searched or not",
    ),
    "fork": (
        "jaxhpo.cli.fork",
        "train on from a checkpoint of a run: decays, extensions, averages",
    ),
    "resume": ("jaxhpo.cli.resume", "carry on a run that was stopped or killed"),
    "plan": ("jaxhpo.cli.plan", "print what a run will compile and how much memory it takes"),
    "profile": (
        "jaxhpo.cli.profile",
        "trace a few steps, and print what the compiler says of each program",
    ),
    "sample": ("jaxhpo.cli.sample", "write text with the model of a run, or explain one token"),
    "translate": (
        "jaxhpo.cli.translate",
        "translate with the model of a run, and score it by BLEU",
    ),
    "size": (
        "jaxhpo.cli.size",
        "print parameters, operations and memory of a model, and its chips",
    ),
    "export": ("jaxhpo.cli.export", "write a run's model as a folder that transformers loads"),
    "average": ("jaxhpo.cli.average", "evaluate the average of a run's checkpoints"),
    "stages": ("jaxhpo.cli.stages", "train in stages, each a fork of the last, from one file"),
    "lineage": ("jaxhpo.cli.lineage", "draw who descends from whom, over several runs"),
    "report": ("jaxhpo.cli.report", "draw the figures of a run and write its page"),
    "schedule": ("jaxhpo.cli.schedule", "draw learning-rate schedules over steps and tokens"),
}
"""Command -> its module, which has `main(argv) -> exit status`, and one line for the usage text."""

DONE, FAILED, USAGE, DIVERGED, RESUME_ME, STOPPED = 0, 1, 2, 3, 75, 130

_BROKEN_PIPE = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status.

    0 done; 1 the machine failed (memory, disk) or a bug; 2 a mistake in the command, named in one
    line; 3 no member has a finite loss; 75 stopped on request and saved, resume it; 130 stopped
    before there was anything to save. With JAXHPO_DEBUG=1 errors show where they come from.
    """
    try:
        return _dispatch(list(sys.argv[1:] if argv is None else argv))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    except (Exception, KeyboardInterrupt) as error:
        if os.environ.get("JAXHPO_DEBUG") == "1":
            traceback.print_exc()
        line, status = explain(error)
        if line is None:
            raise
        if not getattr(error, "elsewhere", False):  # another process of the run says it
            print(f"jaxhpo: {line}", file=sys.stderr)
        return status


def explain(error: BaseException) -> tuple[str | None, int]:
    """The line that a person reads and the exit status; no line for what only a bug explains."""
    if isinstance(error, UsageError):
        return str(error), USAGE
    if isinstance(error, Interrupted):
        said = str(error) or "stopped"
        if said.startswith("jaxhpo resume"):
            return f"saved; carry on with: {said}", RESUME_ME
        return (
            said if "jaxhpo resume" in said else f"{said}; carry on with: jaxhpo resume RUN",
            RESUME_ME,
        )
    if isinstance(error, Diverged):
        return str(error), DIVERGED
    if isinstance(error, Lost):
        return f"{error}; start all processes again to resume", FAILED
    if isinstance(error, KeyboardInterrupt):
        return "stopped", STOPPED
    if full := next((each for each in _causes(error) if _is_disk_full(each)), None):
        where = getattr(full, "filename", None)
        return (
            f"the disk is full{f' ({where})' if where else ''}; what was committed is kept: "
            "free some space, then jaxhpo resume RUN",
            FAILED,
        )
    if any(_is_out_of_memory(each) for each in _causes(error)):
        return (
            "out of memory; try a lower --execution.chunk, --data.batch-size or population, "
            "--model.remat true, or see jaxhpo plan",
            FAILED,
        )
    return None, FAILED


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return DONE
    if argv[0] in ("-V", "--version"):
        print(f"jaxhpo {version()}")
        return DONE
    if argv[0] not in COMMANDS:
        from jaxhpo.config.fields import suggest

        raise UsageError(f"unknown command {argv[0]}; {suggest(argv[0], COMMANDS)}")
    module = importlib.import_module(COMMANDS[argv[0]][0])
    return module.main(argv[1:])


def usage() -> str:
    """What `jaxhpo` alone prints."""
    rows = "\n".join(f"  {name:<10}{line}" for name, (_, line) in COMMANDS.items())
    return (
        "usage: jaxhpo COMMAND [OPTIONS]\n\n"
        "Tune the hyperparameters of language models: whole searches in one JAX program.\n\n"
        f"commands:\n{rows}\n\n"
        "jaxhpo COMMAND --help explains each option. --version prints the version.\n"
        "exit status: 0 done, 2 a mistake in the command, 3 diverged, 75 stopped and saved: resume"
    )


def version() -> str:
    """The installed version."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("jaxhpo")
    except PackageNotFoundError:
        return "(not installed)"


def _causes(error: BaseException) -> list[BaseException]:
    """The error and those that it came from, nearest first."""
    found: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in found:
        found.append(cause)
        cause = cause.__cause__ or cause.__context__
    return found


def _is_disk_full(error: BaseException) -> bool:
    number = getattr(error, "errno", None)
    return number in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in str(error)


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)
