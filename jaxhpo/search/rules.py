"""Rules between dimensions: when one exists, and which points are allowed. Parsed, not evaluated.

A rule is one comparison or several joined by `and`:

    schedule.kind in (wsd, cosine)
    schedule.warmup_steps <= schedule.decay_start
    schedule.decay_start + schedule.decay_steps <= 600 and model.num_layers != 3

Sums, differences, products and quotients of numbers and dimensions may be compared with <=, <, >=,
>, == and !=; words only with ==, != and in.
"""

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from jaxhpo.errors import UsageError
from jaxhpo.search.plan import Point, Value
from jaxhpo.search.values import nearest, print_value, read_number, read_value

LONGEST = 1000
FORM = "NAME in (a, b), or comparisons such as a + 2 * b <= c, joined by 'and'"

_COMPARE: dict[str, Callable[..., bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}
_COMPUTE: dict[str, Callable[..., float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}
_MEMBER = re.compile(r"\s*([A-Za-z_][\w.]*)\s+in\s*\((.*)\)\s*", re.DOTALL)
_OPERATOR = re.compile(r"<=|>=|==|!=|<|>")
_TOKEN = re.compile(r"\s*(?:([A-Za-z_][\w.]*)|(\d[\d.]*(?:[eE][+-]?\d+)?|\.\d+)|([-+*/()]))")


@dataclass(frozen=True)
class Name:
    """The value of a dimension."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Literal:
    """A number or a word."""

    value: Value

    def __str__(self) -> str:
        return print_value(self.value)


@dataclass(frozen=True)
class Binary:
    """Two terms and what joins them."""

    sign: str
    left: "Term"
    right: "Term"

    def __str__(self) -> str:
        return f"({self.left} {self.sign} {self.right})"


Term = Name | Literal | Binary


@dataclass(frozen=True)
class Comparison:
    """`left sign right`; `in` has several terms on its right."""

    sign: str
    left: Term
    right: tuple[Term, ...]

    def __str__(self) -> str:
        if self.sign == "in":
            return f"{self.left} in ({', '.join(map(str, self.right))})"
        return f"{_bare(self.left)} {self.sign} {_bare(self.right[0])}"

    def holds(self, point: Point) -> bool:
        try:
            left, *right = (_value(term, point) for term in self.terms)
        except (ZeroDivisionError, OverflowError):
            return False
        return left in right if self.sign == "in" else _COMPARE[self.sign](left, right[0])

    @property
    def terms(self) -> tuple[Term, ...]:
        return (self.left, *self.right)


@dataclass(frozen=True)
class Rule:
    """Comparisons that all must hold. `str` gives a text that `parse_rule` reads back."""

    comparisons: tuple[Comparison, ...]

    def __str__(self) -> str:
        return " and ".join(map(str, self.comparisons))

    @property
    def names(self) -> frozenset[str]:
        """The dimensions it compares."""
        terms = (term for comparison in self.comparisons for term in comparison.terms)
        return frozenset(leaf.name for term in terms for leaf in _leaves(term, Name))

    def known(self, point: Point) -> bool:
        """Whether the point has a value for every dimension that is compared."""
        return all(name in point for name in self.names)

    def holds(self, point: Point) -> bool:
        """Whether a point that has all the dimensions keeps the rule."""
        return all(comparison.holds(point) for comparison in self.comparisons)

    def resolved(self, values: Mapping[str, tuple[Value, ...] | None]) -> "Rule":
        """The rule with words told from dimensions.

        `values` has every dimension, with what it may be if it is a choice. Raises UsageError for a
        word that is neither a dimension nor a value of the choice it is compared with, and where
        words are ordered or added.
        """
        checked = tuple(_resolved(comparison, values) for comparison in self.comparisons)
        rule = Rule(checked)
        if not rule.names:
            raise UsageError(f"'{self}' names no dimension")
        return rule


def parse_rule(text: str) -> Rule:
    """The rule that `text` states; names and words are told apart later, by `resolved`.

    Raises UsageError saying what was not understood.
    """
    if len(text) > LONGEST:
        raise UsageError(f"a rule of {len(text)} characters; allowed: {LONGEST}")
    try:
        return Rule(tuple(_comparison(part) for part in re.split(r"\band\b", text)))
    except UsageError as reason:
        raise UsageError(f"rule {text.strip()!r}: {reason}; allowed: {FORM}") from None


def _comparison(text: str) -> Comparison:
    if (member := _MEMBER.fullmatch(text)) is not None:
        items = tuple(Literal(read_value(item.strip())) for item in member[2].split(","))
        return Comparison("in", Name(member[1]), items)
    signs = _OPERATOR.findall(text)
    if len(signs) != 1:
        raise UsageError(f"{text.strip()!r} is not one comparison")
    left, right = _OPERATOR.split(text)
    return Comparison(signs[0], _term(left), (_term(right),))


def _term(text: str) -> Term:
    tokens = list(_tokens(text))
    term, rest = _sum(tokens)
    if rest:
        raise UsageError(f"{text.strip()!r} has {rest[0]!r} too many")
    return term


def _tokens(text: str) -> Iterator[str]:
    text, at = text.rstrip(), 0
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            raise UsageError(f"{text[at:].strip()[:20]!r} is not understood")
        yield token[1] or token[2] or token[3]
        at = token.end()


def _sum(tokens: list[str], depth: int = 0) -> tuple[Term, list[str]]:
    term, tokens = _product(tokens, depth)
    while tokens and tokens[0] in "+-":
        right, rest = _product(tokens[1:], depth)
        term, tokens = Binary(tokens[0], term, right), rest
    return term, tokens


def _product(tokens: list[str], depth: int) -> tuple[Term, list[str]]:
    term, tokens = _factor(tokens, depth)
    while tokens and tokens[0] in "*/":
        right, rest = _factor(tokens[1:], depth)
        term, tokens = Binary(tokens[0], term, right), rest
    return term, tokens


def _factor(tokens: list[str], depth: int) -> tuple[Term, list[str]]:
    if not tokens or depth > 20:
        raise UsageError("something is missing" if depth <= 20 else "too many parentheses")
    first, rest = tokens[0], tokens[1:]
    if first == "(":
        term, rest = _sum(rest, depth + 1)
        if not rest or rest[0] != ")":
            raise UsageError("a parenthesis is not closed")
        return term, rest[1:]
    if first == "-" and rest and rest[0][0] in ".0123456789":
        return Literal(-read_number(rest[0])), rest[1:]
    if first in "+-*/)":
        raise UsageError(f"{first!r} is where a number or a name should be")
    if first[0] in ".0123456789":
        value = read_value(first)
        if isinstance(value, str):
            raise UsageError(f"{first!r} is not a finite number")
        return Literal(value), rest
    return Name(first), rest


def _value(term: Term, point: Point) -> Value:
    if isinstance(term, Binary):
        return _COMPUTE[term.sign](_value(term.left, point), _value(term.right, point))
    return point[term.name] if isinstance(term, Name) else term.value


def _leaves(term: Term, kind: type | tuple[type, ...]) -> Iterator:
    if isinstance(term, Binary):
        yield from _leaves(term.left, kind)
        yield from _leaves(term.right, kind)
    elif isinstance(term, kind):
        yield term


def _resolved(comparison: Comparison, values: Mapping[str, tuple[Value, ...] | None]) -> Comparison:
    terms = [_as_word(term, comparison, values) for term in comparison.terms]
    for leaf in (leaf for term in terms for leaf in _leaves(term, Name)):
        if leaf.name not in values:
            near = nearest(leaf.name, list(values))
            raise UsageError(f"'{comparison}': unknown dimension {leaf.name!r}{near}")
    words = any(_wordy(leaf, values) for term in terms for leaf in _leaves(term, (Name, Literal)))
    computed = any(isinstance(term, Binary) for term in terms)
    if words and (computed or comparison.sign not in ("in", "==", "!=")):
        raise UsageError(f"'{comparison}': words have no order and no sum; use ==, != or in")
    if comparison.sign in ("in", "==", "!="):
        _check_values(comparison, terms, values)
    return Comparison(comparison.sign, terms[0], tuple(terms[1:]))


def _check_values(
    comparison: Comparison, terms: list[Term], values: Mapping[str, tuple[Value, ...] | None]
) -> None:
    for name in (term.name for term in terms if isinstance(term, Name)):
        allowed = values[name]
        for literal in (term for term in terms if isinstance(term, Literal)):
            if allowed is not None and literal.value not in allowed:
                shown = ", ".join(map(print_value, allowed))
                raise UsageError(
                    f"'{comparison}': {name} is never {print_value(literal.value)}; it is one of "
                    f"{shown}"
                )


def _as_word(
    term: Term, comparison: Comparison, values: Mapping[str, tuple[Value, ...] | None]
) -> Term:
    """A name that is no dimension is a word, where a choice that has it is on the other side."""
    if not isinstance(term, Name) or term.name in values:
        return term
    others = [other.name for other in comparison.terms if isinstance(other, Name)]
    found = any(term.name in (values.get(other) or ()) for other in others)
    return Literal(term.name) if found else term


def _wordy(leaf: Name | Literal, values: Mapping[str, tuple[Value, ...] | None]) -> bool:
    if isinstance(leaf, Literal):
        return isinstance(leaf.value, str)
    return any(isinstance(value, str) for value in values[leaf.name] or ())


def _bare(term: Term) -> str:
    text = str(term)
    return text[1:-1] if isinstance(term, Binary) else text
