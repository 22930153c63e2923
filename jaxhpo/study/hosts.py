"""The processes of one run: what they tell each other, and how they make sure to agree.

Every process runs the same study. What only one of them can know (the clock, the disk, a database)
process 0 says; what all of them work out is compared. Each exchange begins with a barrier that has
a time limit and knows who is missing; the values then go by JAX's own collectives.
"""

import functools
import hashlib
import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxhpo.errors import Diverged, Interrupted, Lost, UsageError
from jaxhpo.population.config import DistributedConfig, ExecutionConfig, prepare_backend
from jaxhpo.population.joining import join
from jaxhpo.population.launchers import processes

PREPARING = 12
"""How many times longer a process is waited for that prepares: it may be reading a data set."""

_SHORT = 256
"""Bytes of a message that goes in one collective."""

T = TypeVar("T")


class Hosts:
    """The processes of a run; of one alone every answer is its own, and nothing is sent.

    >>> Hosts().from_first(lambda: 3), Hosts().gather(4)
    (3, [4])
    """

    def __init__(
        self, index: int = 0, count: int = 1, patience: int = 300, heartbeat: int = 100
    ) -> None:
        self.index, self.count = index, count
        self.patience, self.heartbeat = patience, heartbeat
        self._exchanges = 0
        self._told: BaseException | None = None
        self.in_flight = False
        """whether programs are on the devices that need all processes: nothing can be told then"""

    @property
    def first(self) -> bool:
        """Whether this is the process that writes, asks and talks for all."""
        return self.index == 0

    @property
    def several(self) -> bool:
        return self.count > 1

    def from_first(self, ask: Callable[[], T], what: str = "a decision", patience: int = 1) -> T:
        """What process 0 answers, for all: what JSON can hold. Its UsageError is everyone's.

        It is waited for `patience` times as long as else.
        """
        if not self.several:
            return ask()
        return self._attempt(ask if self.first else lambda: None, what, patience)[0]

    def together(self, work: Callable[[], T], what: str, patience: int = 1) -> T:
        """What each process makes of its own work; the UsageError of one is everyone's.

        Each is waited for `patience` times as long as else.
        """
        if not self.several:
            return work()
        made: list[T] = []
        self._attempt(lambda: made.append(work()), what, patience)
        return made[0]

    def gather(self, value: T, what: str = "values") -> list[T]:
        """The values of all processes, in order; what JSON can hold."""
        return [value] if not self.several else self._exchange({"value": value}, what)

    def same(self, what: str, fields: Mapping[str, Any], told: Any = None) -> list[Any]:
        """Raises UsageError naming a field, and two values, where the processes' fields differ.

        Returns what each process `told` beside, in order.
        """
        if not self.several:
            return [told]
        digest = hashlib.sha256(_text(fields).encode()).hexdigest()
        found = self.gather((digest, told), what)
        if len({other for other, _ in found}) > 1:
            raise self._telling(UsageError(_difference(what, self.gather(fields, what))))
        return [beside for _, beside in found]

    def meet(self, what: str) -> None:
        """Until all processes are here; nothing is sent. Raises Lost naming those that do not come.

        For where programs are in flight: what is sent would wait for them.
        """
        if self.several:
            self._wait(what, None)

    def everyones(self, error: UsageError) -> UsageError:
        """An error that all processes find by themselves, and raise."""
        self._told = error
        return error

    def agreed(self, error: BaseException) -> bool:
        """Whether all processes end with this error, or with what stands for it there."""
        return error is self._told or isinstance(error, Interrupted | Diverged)

    def leave(self, error: BaseException) -> None:
        """Tells the others why this process ends, or if they do not listen ends it at once.

        To wait for them would keep it from being seen that this process is gone; once it is, JAX's
        coordination service ends the others.
        """
        plain = isinstance(error, UsageError | Lost)
        said = str(error) if plain else f"{type(error).__name__}: {error}"
        failed = {"error": said, "usage": isinstance(error, UsageError)}
        try:
            if not (self.in_flight or isinstance(error, Lost)):
                self._exchange(failed, "the end", self.heartbeat)
        except BaseException as other:
            if other is self._told:
                self._told = error
                error.elsewhere = getattr(other, "elsewhere", False)  # ty: ignore
                return
        if plain:
            more = "; start all processes again to resume" if isinstance(error, Lost) else ""
            print(f"jaxhpo: process {self.index}: {said}{more}", file=sys.stderr)
        else:
            traceback.print_exception(error)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(2 if isinstance(error, UsageError) else 1)

    def _attempt(self, ask: Callable[[], Any], what: str, patience: int) -> list[Any]:
        try:
            message = {"value": ask()}
        except UsageError as error:
            if error is self._told:
                raise
            message = {"error": str(error), "usage": True}
        return self._exchange(message, what, patience * self.patience)

    def _exchange(
        self, message: Mapping[str, Any], what: str, seconds: int | None = None
    ) -> list[Any]:
        self._wait(what, seconds)
        found = [json.loads(text) for text in _gathered(_text({"what": what, **message}))]
        for index, other in enumerate(found):
            if "error" in other:
                own = "" if index == self.index else f"process {index}: "
                kind = UsageError if other["usage"] else Lost
                raise self._telling(kind(own + other["error"]), index == self.index or self.first)
        asked = [other["what"] for other in found]
        if len(set(asked)) > 1:
            raise self._telling(
                UsageError(
                    "the processes of the run do not do the same: "
                    + "; ".join(f"process {i} exchanges {each}" for i, each in enumerate(asked))
                )
            )
        return [other["value"] for other in found]

    def _wait(self, what: str, seconds: int | None) -> None:
        """Until all processes are here. Raises Lost naming those that do not come in time."""
        from orbax.checkpoint import multihost  # late: a process alone needs no barrier

        self._exchanges += 1
        seconds = seconds or self.patience
        barrier = multihost.get_barrier_sync_fn()
        try:
            barrier(key=f"jaxhpo {self._exchanges}", timeout_ms=1000 * seconds)
        except jax.errors.JaxRuntimeError as error:
            raise Lost(self._missing(str(error), seconds, what)) from None

    def _telling(self, error: Exception, aloud: bool | None = None) -> Exception:
        """An error that all processes raise now; one of them, or whose it is, says it aloud."""
        self._told = error
        error.elsewhere = not (self.first if aloud is None else aloud)  # ty: ignore
        return error

    def _missing(self, text: str, seconds: int, what: str) -> str:
        """Who did not come to a barrier, from what the coordination service says."""
        listed = text.partition("timed out task names:")[2].partition("RPC:")[0]
        found = sorted({int(number) for number in re.findall(r"(\d+)\s*$", listed, re.MULTILINE)})
        if not found:
            reason = next(iter(text.splitlines()), "")
            return f"the other processes can't be reached to exchange {what}: {reason[:200]}"
        names = ", ".join(f"process {number}" for number in found)
        return f"{names} of {self.count} did not come within {seconds} s to exchange {what}"


@contextmanager
def joined(config: DistributedConfig, execution: ExecutionConfig, members: int) -> Generator[Hosts]:
    """The processes of a run, joined before JAX's backend starts; one alone where nobody says more.

    Errors that leave it are everyone's, or end all processes.
    """
    prepare_backend(execution, members, processes(config))
    join(config)
    hosts = _this_process(config.timeout_seconds, config.heartbeat_seconds)
    try:
        yield hosts
    except BaseException as error:
        if hosts.several and not hosts.agreed(error):
            hosts.leave(error)
        elif hosts.several and not hasattr(error, "elsewhere"):
            error.elsewhere = not hosts.first  # ty: ignore
        raise


@functools.cache
def _everyone(index: int, count: int) -> Hosts:
    """One object for all runs of a process: exchanges are counted on from run to run."""
    return Hosts(index, count)


def _this_process(patience: int, heartbeat: int) -> Hosts:
    if not jax.distributed.is_initialized() or jax.process_count() == 1:
        return Hosts()
    hosts = _everyone(jax.process_index(), jax.process_count())
    hosts.patience, hosts.heartbeat = patience, heartbeat
    return hosts


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """Dotted name -> leaf of nested mappings and lists.

    >>> flat({"a": [{"b": 1}, 2]})
    {'a.0.b': 1, 'a.1': 2}
    """
    if isinstance(value, Mapping):
        inner = value.items()
    elif isinstance(value, Sequence) and not isinstance(value, str):
        inner = enumerate(value)
    else:
        return {name: value}
    found: dict[str, Any] = {} if value else {name: value}
    for key, entry in inner:
        found |= flat(entry, f"{name}.{key}" if name else str(key))
    return found


def _difference(what: str, found: Sequence[Mapping[str, Any]]) -> str:
    leaves = [flat(each) for each in found]
    for index, other in enumerate(leaves):
        for name in {**leaves[0], **other}:
            mine, theirs = (each.get(name, "absent") for each in (leaves[0], other))
            if _text(mine) != _text(theirs):
                return (
                    f"{what} is not the same everywhere: {name} is {mine!r} on process 0 and "
                    f"{theirs!r} on process {index}; all must have the same versions and options"
                )
    return f"{what} is not the same everywhere"


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=lambda number: number.item())


def _gathered(text: str) -> list[str]:
    """The texts of all processes: short ones in one collective, longer ones in two."""
    content = text.encode()
    header = len(content).to_bytes(4, "big") + content[: _SHORT - 4]
    found = multihost_utils.process_allgather(_padded(header, _SHORT))
    lengths = [int.from_bytes(row[:4].tobytes(), "big") for row in found]
    longest = max(lengths)
    if longest <= _SHORT - 4:
        rows = found[:, 4:]
    else:
        rows = multihost_utils.process_allgather(_padded(content, 1 << (longest - 1).bit_length()))
    return [row[:length].tobytes().decode() for row, length in zip(rows, lengths, strict=True)]


def _padded(content: bytes, size: int) -> np.ndarray:
    return np.frombuffer(content.ljust(size, b"\0"), np.uint8)
