"""A config.json as values that are checked: it may come from a stranger."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxhpo.errors import UsageError

CONFIG = "config.json"
MOST_BYTES = 1_000_000


class ConfigJson:
    """Values by any of several names. What this library can't compute is noted in `refused`: the
    size of such a model is known all the same."""

    def __init__(self, path: Path, table: Mapping[str, Any]) -> None:
        self.path, self.table = path, table
        self.refused: list[str] = []

    @property
    def family(self) -> str:
        return str(self.table.get("model_type"))

    def whole(self, *names: str, default: int | None = None) -> int:
        value = self._first(names, default)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 1 << 31:
            raise UsageError(f"{self.path}: {names[0]}={value!r}; allowed: a whole number above 0")
        return value

    def maybe_whole(self, name: str) -> int | None:
        return None if self.table.get(name) is None else self.whole(name)

    def number(self, *names: str, default: float) -> float:
        value = self._first(names, default)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise UsageError(f"{self.path}: {names[0]}={value!r}; allowed: a number")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        value = self.table.get(name)
        value = default if value is None else value
        if not isinstance(value, bool):
            raise UsageError(f"{self.path}: {name}={value!r}; allowed: true or false")
        return value

    def section(self, name: str) -> "ConfigJson | None":
        """A table in the table, or None; what it refuses is refused here."""
        value = self.table.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise UsageError(f"{self.path}: {name}={value!r}; allowed: a table")
        found = ConfigJson(self.path, value)
        found.refused = self.refused
        return found

    def choice(self, name: str, default: Any, allowed: Mapping[Any, Any]) -> Any:
        """What a value means. One that is not allowed is refused, and taken for the default."""
        value = self.table.get(name, default)
        if isinstance(value, str | bool | None) and value in allowed:
            return allowed[value]
        self.refuse(name, value, ", ".join(json.dumps(each) for each in allowed))
        return allowed[default]

    def refuse(self, name: str, value: Any, allowed: str) -> None:
        self.refused.append(f"{self.path}: {name}={value!r}; allowed: {allowed}")

    def _first(self, names: tuple[str, ...], default: Any) -> Any:
        found = [self.table[name] for name in names if self.table.get(name) is not None]
        return found[0] if found else default


def read_config(folder: Path | str) -> ConfigJson:
    """The config.json of a folder. Raises UsageError where there is none that can be read."""
    path = Path(folder) / CONFIG
    return ConfigJson(path, read_table(path, MOST_BYTES))


def read_table(path: Path, most_bytes: int) -> dict[str, Any]:
    """A JSON file that holds a table. Raises UsageError where it does not, or is too large."""
    try:
        with path.open("rb") as file:
            content = file.read(most_bytes + 1)
        if len(content) > most_bytes:
            raise UsageError(f"{path} is larger than {most_bytes:,} bytes, the most allowed")
        table = json.loads(content)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from None
    except (ValueError, RecursionError):
        raise UsageError(f"{path} is not JSON") from None
    if not isinstance(table, dict):
        raise UsageError(f"{path} is not a table of names and values")
    return table
