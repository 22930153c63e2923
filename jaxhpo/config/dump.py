"""Configs as TOML that loads back to the same config, every value written out."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from jaxhpo.config.fields import NONE, hints, members
from jaxhpo.errors import UsageError

_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def to_dict(config: Any) -> dict[str, Any]:
    """Nested plain tables of a config, for a log or a tracker; `from_dict` reads them back."""
    table: dict[str, Any] = {}
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            table[field.name] = to_dict(value)
        elif isinstance(value, Mapping):
            table[field.name] = dict(value)
        else:
            table[field.name] = list(value) if isinstance(value, tuple) else value
    return table


def to_toml(config: Any) -> str:
    """A config as TOML, defaults and all, so that it means the same when defaults change."""
    lines = [f'command = "{config.command}"'] if hasattr(config, "command") else []
    return "\n".join([*lines, *_table(config, "")]) + "\n"


def _table(config: Any, prefix: str) -> list[str]:
    """The lines of a config: its values, then its sections, each under its dotted name."""
    lines: list[str] = []
    sections: list[str] = []
    for field in fields(config):
        value, name = getattr(config, field.name), prefix + field.name
        if is_dataclass(value):
            sections += ["", f"[{name}]", *_table(value, f"{name}.")]
        elif isinstance(value, Mapping):
            sections += ["", f"[{name}]"]
            sections += [f"{_text(key)} = {_text(text)}" for key, text in value.items()]
        else:
            lines.append(f"{field.name} = {_literal(config, field.name)}")
    return lines + sections


def _literal(config: Any, name: str) -> str:
    value = getattr(config, name)
    choices = members(hints(type(config))[name])
    if value == NONE and str in choices and type(None) in choices:
        raise UsageError(f'{name}="{NONE}" is how no value is written; allowed: any other text')
    return _scalar(value)


def _scalar(value: Any) -> str:
    if value is None:
        return f'"{NONE}"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, tuple):
        return f"[{', '.join(map(_scalar, value))}]"
    return _text(value)


def _text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{value!r} is not valid Unicode; a config can't hold it") from error
    safe = (
        _ESCAPES.get(char) or (char if " " <= char != "\x7f" else f"\\u{ord(char):04x}")
        for char in value
    )
    return f'"{"".join(safe)}"'
