"""A bar on the terminal for what takes long; where the error stream is no terminal, nothing."""

import contextlib
import sys
from collections.abc import Callable, Generator


@contextlib.contextmanager
def progress(label: str, total: int | None = None) -> Generator[Callable[[int], None]]:
    """Shows `label` with the time that passes, and of how much is done: call with what was added.

    It goes when it is done, so that what is printed after it stands alone.
    """
    if not sys.stderr.isatty():
        yield lambda added: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    done = () if total is None else (BarColumn(), TextColumn("{task.completed}/{task.total}"))
    columns = SpinnerColumn(), TextColumn("{task.description}"), *done, TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda added: bar.advance(task, added)
