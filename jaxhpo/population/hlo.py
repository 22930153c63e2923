"""The compiler's text of a program, as computations of instructions; no more than is asked of it.

Grammar: https://openxla.org/xla/operation_semantics, as `Compiled.as_text()` prints it. A line is
`%name = TYPE opcode(%operand, ...), attribute=value, ...`.
"""

import functools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\) -> .* \{$")
_NAME = re.compile(r"^\s+(?:ROOT )?%?([\w.-]+) = ")
_OPCODE = re.compile(r"([a-z][\w-]*)\(")
_OPERAND = re.compile(r"%([\w.-]+)")
_SHAPE = re.compile(r"\b([a-z]+\d*(?:e\d+m\d+\w*)?)\[([\d,<=]*)\]")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_CALLED = re.compile(
    r"\b(?:body|condition|calls|called_computation|true_computation|false_computation|to_apply)"
    r"=%?([\w.-]+)"
)
_BRANCHES = re.compile(r"\b(?:branch_computations|called_computations)=\{([^}]*)\}")

_WIDTHS = {"pred": 8, "token": 0, "opaque": 0}


@dataclass(frozen=True)
class Instruction:
    """One line: what it makes, of what, and the rest of it as text."""

    name: str
    type: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str

    def attribute(self, name: str) -> str | None:
        """An attribute's value as it is written; None where there is none."""
        found = re.search(rf"\b{name}=", self.attributes)
        return None if found is None else _value(self.attributes[found.end() :])

    @functools.cached_property
    def called(self) -> tuple[str, ...]:
        """The computations that it calls, each once: loops, branches, fusions, reductions."""
        names = _CALLED.findall(self.attributes)
        for group in _BRANCHES.findall(self.attributes):
            names += [name.strip().lstrip("%") for name in group.split(",")]
        return tuple(dict.fromkeys(names))

    @property
    def trip_count(self) -> int | None:
        """How often a loop turns, where the compiler knows."""
        found = _TRIPS.search(self.attributes)
        return None if found is None else int(found[1])


@dataclass(frozen=True)
class Module:
    """A program: computations by name, and the one that is called."""

    computations: Mapping[str, tuple[Instruction, ...]]
    entry: str

    @functools.cached_property
    def types(self) -> Mapping[str, str]:
        """Type by name of instruction: names are unique in a module."""
        lines = (line for lines in self.computations.values() for line in lines)
        return {line.name: line.type for line in lines}

    def operand_bytes(self, instruction: Instruction) -> float:
        """Bytes of all that an instruction takes."""
        return sum(type_bytes(self.types[name]) for name in instruction.operands)


def parse(text: str) -> Module:
    """A program's text. Raises ValueError where it has no entry."""
    computations: dict[str, tuple[Instruction, ...]] = {}
    entry, name, lines = None, None, []
    for line in text.splitlines():
        if (head := _COMPUTATION.match(line)) is not None:
            name, lines = head[2], []
            entry = name if head[1] else entry
        elif line.startswith("}") and name is not None:
            computations[name], name = tuple(lines), None
        elif name is not None and (found := _instruction(line)) is not None:
            lines.append(found)
    if entry is None or entry not in computations:
        raise ValueError("this is no text of a compiled program: it has no ENTRY")
    return Module(computations, entry)


def type_bytes(text: str) -> float:
    """Bytes of a type, of a tuple's parts together.

    >>> type_bytes("f32[8,16]{1,0}"), type_bytes("(bf16[4]{0}, s4[3], pred[])")
    (512.0, 10.5)
    """
    return sum(
        math.prod(int(size.lstrip("<=")) for size in dims.split(",") if size) * _bits(dtype) / 8
        for dtype, dims in _SHAPE.findall(text)
    )


def _bits(dtype: str) -> int:
    """Width of one element: `bf16`, `f8e4m3fn`, `s4`, `c64`, `pred`."""
    if dtype in _WIDTHS:
        return _WIDTHS[dtype]
    found = re.match(r"[a-z]+(\d+)", dtype)
    if found is None:
        raise ValueError(f"{dtype} is no type of element that is known")
    return int(found[1])


def _instruction(line: str) -> Instruction | None:
    head = _NAME.match(line)
    if head is None:
        return None
    rest = re.sub(r"/\*.*?\*/", "", line[head.end() :])
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    opcode = _OPCODE.match(rest, end + 1 if rest[end : end + 1] == " " else end)
    if opcode is None:
        return None
    close = _closing(rest, opcode.end() - 1)
    operands = rest[opcode.end() : close]
    return Instruction(
        name=head[1],
        type=rest[:end],
        opcode=opcode[1],
        operands=tuple(_OPERAND.findall(operands)),
        attributes=rest[close + 1 :],
    )


def _closing(text: str, start: int) -> int:
    """Where the bracket that opens at `start` closes."""
    depth = 0
    for place in range(start, len(text)):
        depth += (text[place] in "([{") - (text[place] in ")]}")
        if depth == 0:
            return place
    raise ValueError(f"a bracket is not closed: {text[start : start + 80]}")


def _value(text: str) -> str:
    """The beginning of `text` up to the comma that ends it."""
    depth = 0
    for place, letter in enumerate(text):
        if depth == 0 and letter in ", ":
            return text[:place]
        depth += (letter in "([{") - (letter in ")]}")
    return text
