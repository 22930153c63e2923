"""Dotted names of a config and what each may hold: one vocabulary for files, flags and spaces."""

import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from functools import lru_cache
from typing import Any, Literal

NONE = "none"
"""How None is written in files and on the command line."""


@lru_cache(maxsize=64)
def hints(kind: Any) -> dict[str, Any]:
    """Type of each field of a dataclass, in order."""
    resolved = typing.get_type_hints(kind)
    return {field.name: resolved[field.name] for field in fields(kind)}


def options(kind: type, prefix: str = "") -> dict[str, Any]:
    """Dotted name -> type of every leaf of a dataclass type; a mapping is a leaf."""
    found: dict[str, Any] = {}
    for name, hint in hints(kind).items():
        found |= options(hint, f"{prefix}{name}.") if is_section(hint) else {prefix + name: hint}
    return found


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted name -> value of every leaf of a config; a mapping's entries are leaves."""
    found: dict[str, Any] = {}
    for field in fields(config):
        value = getattr(config, field.name)
        name = prefix + field.name
        if is_dataclass(value):
            found |= flatten(value, f"{name}.")
        elif isinstance(value, Mapping):
            found |= {f"{name}.{key}": entry for key, entry in value.items()}
        else:
            found[name] = value
    return found


def is_section(hint: Any) -> bool:
    """Is this type a nested config, a table in a file?"""
    return isinstance(hint, type) and is_dataclass(hint)


def is_mapping(hint: Any) -> bool:
    """Is this type a mapping of names to texts?"""
    return typing.get_origin(hint) is Mapping


def members(hint: Any) -> tuple[Any, ...]:
    """The alternatives of a union, or the type alone."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return typing.get_args(hint)
    return (hint,)


def optional(hint: Any) -> bool:
    """May this be None?"""
    return type(None) in members(hint)


def several(hint: Any) -> bool:
    """May this hold more than one value?"""
    return any(typing.get_origin(member) in (tuple, Mapping) for member in members(hint))


def describe(hint: Any) -> str:
    """What a person may write for a type: `a number, or a list of numbers`."""
    return ", or ".join(_one(member) for member in members(hint))


_PLAIN = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    type(None): NONE,
}


def _one(hint: Any) -> str:
    if hint in _PLAIN:
        return _PLAIN[hint]
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return ", ".join(map(str, args))
    if origin is tuple:
        many = {int: "whole numbers", float: "numbers", str: "texts"}
        return f"a list of {many.get(args[0], _one(args[0]))}"
    return "a table of names and texts"


def suggest(name: str, known: Iterable[str]) -> str:
    """The end of an error message: the known name nearest to a mistyped one, or where to look."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if not near:
        last = {each.rsplit(".", 1)[-1]: each for each in reversed(names)}
        found = difflib.get_close_matches(name.rsplit(".", 1)[-1], list(last), n=1, cutoff=0.6)
        near = [last[found[0]]] if found else []
    if near:
        return f"perhaps you meant {near[0]}"
    return f"known: {', '.join(names)}" if len(names) <= 12 else "see --help for all names"
