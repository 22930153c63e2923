"""SIGTERM and Ctrl-C ask a run to save and stop; asked twice, it stops at once."""

import contextlib
import os
import signal
import socket
import threading
import time
from types import FrameType
from typing import Self

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_SAME_REQUEST_SECONDS = 0.3


class StopSignals:
    """Turns the first signal into a flag, and the second into the end of the process.

    >>> with StopSignals() as stop:                        # doctest: +SKIP
    ...     while not stop.requested:
    ...         train_a_segment()

    `requested` is the signal's name ("SIGTERM", "SIGINT") or None. Signals within 0.3 s count as
    one: launchers often send to the process and to its group. A second one ends the process with
    143 or 130, even while the main thread is inside a compilation: a thread listens, as a Python
    handler would only run once that returns. Handlers are put back on the way out. Outside the
    main thread, where Python allows no handlers, nothing is installed.
    """

    def __init__(self) -> None:
        self.requested: str | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self
        self._reading, self._writing = socket.socketpair()
        self._writing.setblocking(False)
        for number in _SIGNALS:
            self._before[number] = signal.signal(number, self._handle)
        self._wakeup_before = signal.set_wakeup_fd(
            self._writing.fileno(), warn_on_full_buffer=False
        )
        threading.Thread(target=self._listen, name="stop-signals", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._before:
            return
        signal.set_wakeup_fd(self._wakeup_before)
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self._before = {}
        self._writing.close()  # ends the thread

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._request(number)

    def _request(self, number: int) -> None:
        self.requested = self.requested or signal.Signals(number).name

    def _listen(self) -> None:
        first: float | None = None
        with self._reading:
            while received := self._reading.recv(1):
                number = received[0]
                if number not in _SIGNALS:
                    continue
                if first is None:
                    first = time.monotonic()
                    self._request(number)
                    name = signal.Signals(number).name
                    _say(f"\n{name}: saving, then stopping; once more to stop at once\n")
                elif time.monotonic() - first > _SAME_REQUEST_SECONDS:
                    os._exit(128 + number)


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, text.encode())
