"""Values for any field of a config, by its type, for the laws about all fields."""

import typing
from typing import Any

from hypothesis import strategies as st

from jaxhpo.config import flatten, from_dict, options
from jaxhpo.config.fields import is_mapping, members
from jaxhpo.config.run import Run
from jaxhpo.errors import UsageError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda t: t != "none")


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a type, many of which a room's own rules will refuse."""
    return st.one_of([_values(each) for each in members(hint)])


def _values(hint: Any) -> st.SearchStrategy[Any]:
    if typing.get_origin(hint) is typing.Literal:
        return st.sampled_from(typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return st.lists(_values(typing.get_args(hint)[0]), min_size=1, max_size=4).map(tuple)
    if is_mapping(hint):
        names = st.sampled_from(["schedule.peak_lr", "loss.z_loss", "dropout.residual.0"])
        return st.dictionaries(names, TEXT)
    return {
        int: st.sampled_from([1, 2, 4, 8, 16, 64]) | st.integers(0, 1000),
        float: st.floats(0, 1) | st.floats(0, 1e6),
        bool: st.booleans(),
        str: TEXT,
        type(None): st.none(),
    }[hint]


def other(kind: type[Run], name: str) -> Run:
    """A valid config that differs from the default in one leaf only."""
    hint, now = options(kind)[name], flatten(kind()).get(name)
    for value in _candidates(hint):
        table: Any = value
        for part in reversed(name.split(".")):
            table = {part: table}
        try:
            if value != now and (config := from_dict(kind, table)) != kind():
                return config
        except UsageError:
            continue
    raise AssertionError(f"no other valid value found for {name}")


def _candidates(hint: Any) -> list[Any]:
    found: list[Any] = []
    for each in members(hint):
        if typing.get_origin(each) is typing.Literal:
            found += typing.get_args(each)
        elif typing.get_origin(each) is tuple:
            inner = _candidates(typing.get_args(each)[0])
            found += [[value] for value in inner]
            found += [["a < b"], [0.5, 0.25], [1.5], ["3"], ["linear"], ["hold 10"], ["norm=0.5"]]
            found += [["mlp/up"], ["no", "yes"]]
        elif is_mapping(each):
            found.append({"loss.z_loss": "log(1e-6, 1e-3)"})
        else:
            plain = {int: [1, 2, 3, 8, 64, 0], float: [0.25, 0.5, 2.0, 100.0], bool: [True, False]}
            found += plain.get(
                each, ["another", "10.0.0.1:12345", "data=2", "de-en"] if each is str else []
            )
    return found
