"""HTML from nested calls; whatever is not markup already is escaped."""

import html
from collections.abc import Iterable
from typing import Any


class Markup(str):
    """Text that is HTML already. Nothing but `tag` and trusted constants may make one."""

    __slots__ = ()


def tag(name: str, /, *children: Any, **attributes: Any) -> Markup:
    """An element; attribute names lose a trailing underscore (`class_`); None is left out.

    >>> tag("p", "a < b", class_="note")
    '<p class="note">a &lt; b</p>'
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value), quote=True)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in ("img", "meta", "br"):
        return Markup(f"<{name}{given}>")
    return Markup(f"<{name}{given}>{join(children)}</{name}>")


def join(children: Iterable[Any]) -> Markup:
    """Children one after another; None is left out, lists are flattened."""
    return Markup("".join(_text(child) for child in children))


def table(
    head: Iterable[Any], rows: Iterable[Iterable[Any]], numeric: Iterable[int] = ()
) -> Markup:
    """A table in a frame that scrolls when it is wide; `numeric` columns are set flush right."""
    right = set(numeric)

    def cells(kind: str, values: Iterable[Any]) -> list[Markup]:
        return [tag(kind, v, class_="number" if i in right else None) for i, v in enumerate(values)]

    body = [tag("tr", cells("td", row)) for row in rows]
    return tag(
        "div",
        tag("table", tag("thead", tag("tr", cells("th", head))), tag("tbody", body)),
        class_="scroll",
    )


def _text(child: Any) -> str:
    if child is None:
        return ""
    if isinstance(child, Markup):
        return child
    if isinstance(child, list | tuple):
        return join(child)
    return html.escape(str(child), quote=True)
