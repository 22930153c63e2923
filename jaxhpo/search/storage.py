"""A database that several processes share: SQLite on one host, PostgreSQL or MySQL beyond it."""

import contextlib
import time
from collections.abc import Generator
from typing import Any

from jaxhpo.errors import UsageError
from jaxhpo.search.samplers import quietly

PATIENCE_SECONDS = 60
"""How long a locked SQLite file is waited for."""

ATTEMPTS = 4
"""Two processes that create the tables at once disturb each other: the next attempt finds them."""


def open_storage(url: str, heartbeat: int) -> Any:
    """Optuna's storage behind a URL, made if it is not there; trials without two heartbeats in a
    row are stale.

    Raises UsageError in one line, without the password, where it can't be reached or read.
    """
    from sqlalchemy.exc import SQLAlchemyError

    with reaching(url), quietly():
        for attempt in range(ATTEMPTS):
            try:
                return _opened(url, heartbeat)
            except SQLAlchemyError as error:
                if attempt == ATTEMPTS - 1 or not _disturbed(error):
                    raise
                time.sleep(0.2 * 2**attempt)
    raise AssertionError("the last attempt returns or raises")


@contextlib.contextmanager
def reaching(url: str) -> Generator[None]:
    """Errors of the database as one line that names it."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) else error
        raise UsageError(
            f"search.storage={without_password(url)}: {_reason(cause or error)}; what has been "
            "logged is safe, resume when it can be reached"
        ) from None
    except ImportError as error:
        raise UsageError(
            f"search.storage={without_password(url)}: the library for this kind of database is "
            f"not installed ({_reason(error.__cause__ or error)})"
        ) from None


def without_password(url: str) -> str:
    """The URL as it may be shown."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(url).render_as_string(hide_password=True)
    except (ArgumentError, ValueError):
        return repr(url.partition("://")[0] + "://...") if "://" in url else repr(url)


def _opened(url: str, heartbeat: int) -> Any:
    import optuna
    from sqlalchemy import event
    from sqlalchemy.engine import make_url

    if make_url(url).get_backend_name() != "sqlite":
        return optuna.storages.RDBStorage(url, heartbeat_interval=heartbeat)
    # SQLite has no row locks: unless a transaction takes the file's lock before it reads, two
    # processes read the same trial as free, and both take it
    options = {"connect_args": {"timeout": PATIENCE_SECONDS, "isolation_level": None}}
    storage = optuna.storages.RDBStorage(url, engine_kwargs=options, heartbeat_interval=heartbeat)
    event.listen(storage.engine, "begin", _begin_immediate)
    return storage


def _begin_immediate(connection: Any) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _disturbed(error: Exception) -> bool:
    return any(word in str(error) for word in ("already exists", "UNIQUE", "locked", "uplicate"))


def _reason(error: BaseException) -> str:
    origin = getattr(error, "orig", None) or error
    lines = str(origin).strip().splitlines()
    return lines[0] if lines else type(origin).__name__
