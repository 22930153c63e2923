"""Command lines that name one run directory and have no options of their own."""

from collections.abc import Sequence
from pathlib import Path

from jaxhpo.errors import UsageError


def run_directory(argv: Sequence[str], command: str, doc: str) -> Path:
    """The run directory that a command line names; where help is asked for, prints it and exits."""
    usage = f"usage: jaxhpo {command} RUN"
    if "-h" in argv or "--help" in argv:
        print(f"{usage}\n\n{doc}\n\n  RUN  a run directory, such as runs/pbt-0001")
        raise SystemExit(0)
    for word in argv:
        if word.startswith("-"):
            raise UsageError(f"unknown option {word}; {usage}")
    if len(argv) != 1:
        raise UsageError(f"{'no run directory' if not argv else 'more than one argument'}; {usage}")
    return existing(argv[0])


def existing(text: str) -> Path:
    """The folder that a command line names. Raises UsageError naming the nearest there is."""
    path = Path(text)
    if not path.is_dir():
        raise UsageError(f"no run directory {path}{_nearest(path)}")
    return path


def _nearest(path: Path) -> str:
    from jaxhpo.config.fields import suggest

    parent = path.parent
    beside = [str(each) for each in parent.iterdir() if each.is_dir()] if parent.is_dir() else []
    near = suggest(str(path), beside) if beside else ""
    return f"; {near}" if near.startswith("perhaps") else ""
