"""Folders on this machine or in Google Cloud Storage, asked with a limit on the time it takes."""

import importlib.util
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from jaxhpo.errors import UsageError

T = TypeVar("T")

REMOTE = "gs://"
STORAGE = "storage.googleapis.com"
ANSWER_SECONDS = 5.0
"""How long a name may take to resolve."""
LISTING_SECONDS = 30.0
"""How long a folder may take to be listed, credentials looked up included."""


def folder(path: str, option: str) -> Any:
    """A path with pathlib's methods. Raises UsageError, in seconds, for one in Cloud Storage that
    this machine can't reach."""
    if not path.startswith(REMOTE):
        return Path(path).expanduser()
    if importlib.util.find_spec("gcsfs") is None:
        raise UsageError(f"{option}={path} is read by gcsfs, which is absent: pip install gcsfs")
    if not reachable(STORAGE):
        raise UsageError(
            f"{option}={path}: this machine can't reach {STORAGE}; copy the folder where it can and"
            f" give the copy as {option}"
        )
    from etils import epath

    return epath.Path(path)


def reachable(host: str) -> bool:
    """Does the name of a host resolve within seconds?"""
    try:
        within(ANSWER_SECONDS, lambda: socket.getaddrinfo(host, 443))
    except (OSError, TimeoutError):
        return False
    return True


def within(seconds: float, call: Callable[[], T]) -> T:
    """What a call gives. Raises TimeoutError where it takes longer; it is then left behind."""
    found: list[T] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            found.append(call())
        except BaseException as error:  # raised again below
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if raised:
        raise raised[0]
    if not found:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return found[0]
