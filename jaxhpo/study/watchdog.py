"""A segment that takes far too long says where every thread of its process is."""

import faulthandler
import os
import statistics
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

TIMES = 10
"""How many times the median step a step may take."""

LEAST_SECONDS = 20.0
"""A segment is never called slow before."""

MEASURED = 2
"""Segments that must have been measured before one is called slow."""


class Watchdog:
    """Times segments; one whose steps take ten times the median has all stacks dumped, once.

    They go to stderr and to `stacks-I.txt` in the run directory, I being the number of the process.
    With `ends_after` seconds the process is ended that long after it was called slow: one of
    several that hangs in a collective would wait for ever.
    """

    def __init__(
        self,
        folder: Path,
        process: int = 0,
        ends_after: float | None = None,
        least: float = LEAST_SECONDS,
    ) -> None:
        self.path = folder / f"stacks-{process}.txt"
        self._process, self._ends_after, self._least = process, ends_after, least
        self._step_seconds: deque[float] = deque(maxlen=101)
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._begun = self._counts = False

    @contextmanager
    def segment(self, steps: int) -> Generator[None]:
        """Watches what is done inside: a segment of so many steps. The first one compiles."""
        steps, begun = max(steps, 1), time.monotonic()
        self._counts = self._begun
        self._begun = True
        if len(self._step_seconds) >= MEASURED:
            usual = statistics.median(self._step_seconds) * steps
            with self._lock:
                self._start(max(TIMES * usual, self._least), self._slow, usual, steps)
        try:
            yield
        finally:
            self._stop()
        if self._counts:
            self._step_seconds.append((time.monotonic() - begun) / steps)

    def excuse(self) -> None:
        """The segment in progress compiles: it is neither slow nor measured."""
        self._counts = False
        self._stop()

    def _start(self, seconds: float, function: Callable[..., None], *arguments: Any) -> None:
        timer = threading.Timer(seconds, lambda: function(timer, *arguments))
        timer.daemon = True
        self._timer = timer
        timer.start()

    def _stop(self) -> None:
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = None

    def _slow(self, timer: threading.Timer, usual: float, steps: int) -> None:
        with self._lock:
            if timer is not self._timer:  # over, just now
                return
            if self._ends_after is not None:
                self._start(self._ends_after, self._end)
        said = (
            f"\njaxhpo: process {self._process}: a segment of {steps} steps, which takes "
            f"{usual:.3g} s, takes {TIMES} times as long; where each thread is:\n"
        )
        for descriptor in self._targets():
            with suppress(OSError, ValueError):
                os.write(descriptor, said.encode())
                faulthandler.dump_traceback(descriptor)

    def _targets(self) -> Iterator[int]:
        with suppress(OSError, ValueError, AttributeError):
            yield sys.stderr.fileno()
        with suppress(OSError):
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(self.path, flags, 0o600)
            try:
                yield descriptor
            finally:
                os.close(descriptor)

    def _end(self, timer: threading.Timer) -> None:
        with self._lock:
            if timer is not self._timer:
                return
        said = (
            f"jaxhpo: process {self._process}: no end of the segment after {self._ends_after:g} s "
            "more; this process ends, and with it the others: start them again to resume\n"
        )
        with suppress(OSError):
            os.write(2, said.encode())
        os._exit(1)
