"""Configs from TOML files and nested mappings, strictly: every name known, every value of its type.

A config may come from a stranger: its size is capped, nothing in it is evaluated, and what is not
understood is refused with one line.
"""

import dataclasses
import math
import tomllib
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from jaxhpo.config.fields import (
    NONE,
    describe,
    hints,
    is_mapping,
    is_section,
    members,
    options,
    suggest,
)
from jaxhpo.config.recipes import with_recipe
from jaxhpo.errors import UsageError

T = TypeVar("T")

MAX_BYTES = 1_000_000
_UNBOUNDED = {"Infinity": math.inf, "inf": math.inf}


def read_toml(path: Path | str) -> dict[str, Any]:
    """The tables of a TOML file. Raises UsageError where it is missing, too large or not TOML."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"config file {path}: {error.strerror or error}") from error
    if len(content) > MAX_BYTES:
        raise UsageError(f"config file {path} is larger than {MAX_BYTES:,} bytes, the most allowed")
    try:
        return tomllib.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UsageError(f"config file {path} is not UTF-8 (byte {error.start})") from error
    except RecursionError as error:
        raise UsageError(f"config file {path} nests too deep") from error
    except ValueError as error:
        raise UsageError(f"config file {path} is not TOML: {error}") from error


def from_dict(kind: type[T], table: Mapping[str, Any], base: T | None = None) -> T:
    """A config of `kind` from nested tables; `base` (default: `kind()`) gives what they leave out.

    Raises UsageError naming the option, the value and what is allowed.
    """
    return _section(kind, table, kind() if base is None else base, "")


def load(
    kind: type[T],
    path: Path | str,
    base: T | None = None,
    recipe: str | None = None,
    steps: int | None = None,
) -> T:
    """A config of `kind` from a TOML file; a top-level `command` must name the same command.

    A top-level `recipe`, or the argument instead of it, gives the defaults of schedule and
    optimizer, scaled to `steps` (default: the file's), under all that the file says.
    """
    table = read_toml(path)
    command = table.pop("command", None)
    expected = getattr(kind, "command", None)
    if command is not None and command != expected:
        raise UsageError(f"config file {path} is for command={command!r}; allowed here: {expected}")
    try:
        if expected is not None and "recipe" in table:
            own = table.pop("recipe")
            recipe = own if recipe is None else recipe
        if recipe is not None:
            length = {"steps": table.get("steps") if steps is None else steps}
            begun = from_dict(kind, length if length["steps"] is not None else {}, base)
            base = with_recipe(begun, recipe)  # ty: ignore[invalid-argument-type]
        return from_dict(kind, table, base)
    except UsageError as error:
        raise UsageError(f"config file {path}: {error}") from error


def _section(kind: type[T], table: Any, base: T, prefix: str) -> T:
    if not isinstance(table, Mapping):
        name = prefix.rstrip(".")
        raise UsageError(f"{name}={_show(table)} is not a table; write {name}.NAME = VALUE")
    known = hints(kind)
    values = {}
    for name, value in table.items():
        if name not in known:
            near = suggest(prefix + name, options(kind, prefix))
            raise UsageError(f"unknown option {prefix}{name}; {near}")
        values[name] = _value(known[name], value, getattr(base, name), prefix + name)
    return dataclasses.replace(base, **values)  # ty: ignore[invalid-argument-type]


def _value(hint: Any, value: Any, base: Any, name: str) -> Any:
    if is_section(hint):
        return _section(hint, value, base, f"{name}.")
    if is_mapping(hint) and isinstance(value, Mapping):
        return _mapping(value, name)
    # none comes first: of an optional text, "none" is no text
    for member in sorted(members(hint), key=lambda member: member is not type(None)):
        fitted = _fit(member, value)
        if fitted is not None:
            return fitted[0]
    raise UsageError(
        f"{name}={_show(value)}; allowed: {describe(hint)}{_nearest_choice(hint, value)}"
    )


def _fit(hint: Any, value: Any) -> tuple[Any] | None:
    """The value as `hint` wants it, in a tuple of one; None where it does not fit."""
    if hint is type(None):
        return (None,) if value is None or value == NONE else None
    if typing.get_origin(hint) is Literal:
        same = [
            each for each in typing.get_args(hint) if each == value and type(each) is type(value)
        ]
        return (same[0],) if same else None
    if typing.get_origin(hint) is tuple:
        return _fit_tuple(hint, value)
    if hint is float:
        return _fit_float(value)
    return (value,) if type(value) is hint else None


def _fit_float(value: Any) -> tuple[float] | None:
    if isinstance(value, str):
        return (_UNBOUNDED[value],) if value in _UNBOUNDED else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return (float(value),)
    except OverflowError:
        return None


def _fit_tuple(hint: Any, value: Any) -> tuple[Any] | None:
    if not isinstance(value, list | tuple):
        return None
    fitted = [_fit(typing.get_args(hint)[0], each) for each in value]
    return None if None in fitted else (tuple(each[0] for each in fitted if each),)


def _mapping(table: Mapping[str, Any], name: str) -> dict[str, str]:
    """Dotted names -> texts; nested tables and quoted names with dots mean the same."""
    found: dict[str, str] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            inner = _mapping(value, f"{name}.{key}")
            entries = {f"{key}.{rest}": text for rest, text in inner.items()}
        elif isinstance(value, str):
            entries = {key: value}
        else:
            raise UsageError(
                f"{name}.{key}={_show(value)}; allowed: text such as 'log(1e-4, 1e-1)'"
            )
        for twice in entries.keys() & found.keys():
            raise UsageError(f"{name}.{twice} is given twice; allowed: once")
        found |= entries
    return found


def _nearest_choice(hint: Any, value: Any) -> str:
    choices = [
        c for m in members(hint) if typing.get_origin(m) is Literal for c in typing.get_args(m)
    ]
    if not choices or not isinstance(value, str):
        return ""
    near = suggest(value, map(str, choices))
    return f"; {near}" if near.startswith("perhaps") else ""


def _show(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and value.bit_length() > 256:
        return "(a number too large)"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
