"""Which changes a resumed run accepts: every field is classed, and every class is kept."""

import typing

import pytest

from jaxhpo.config import KINDS, PbtRun, TrainRun, class_of, difference, options, refuse_drift
from jaxhpo.config.drift import CLASSES
from jaxhpo.config.run import Run
from jaxhpo.errors import UsageError
from tests.config.generated import other


def choices(hint: object) -> tuple[object, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()


LEAVES = [(kind, name) for kind in KINDS.values() for name in options(kind)]
CHANGEABLE = [(kind, name) for kind, name in LEAVES if len(choices(options(kind)[name])) != 1]
"""A field with one choice only has no other value yet."""


def ids(each: object) -> object:
    return getattr(each, "command", each)


every_field = pytest.mark.parametrize(("kind", "name"), LEAVES, ids=ids)


@pytest.mark.parametrize(("kind", "name"), CHANGEABLE, ids=ids)
def test_a_changed_field_is_the_difference_and_its_class_decides(
    kind: type[Run], name: str
) -> None:
    before, now = kind(), other(kind, name)
    differing = [row[0] for row in difference(before, now)]
    assert differing and all(row == name or row.startswith("space.") for row in differing)
    if class_of(name) == "runtime":
        refuse_drift(before, now)
        return
    with pytest.raises(UsageError) as caught:
        refuse_drift(before, now)
    assert all(row in str(caught.value) for row in differing)


@every_field
def test_every_field_is_classed_by_hand(kind: type[Run], name: str) -> None:
    assert name.partition(".")[0] in CLASSES
    assert class_of(name) in ("semantic", "runtime")


def test_no_class_is_left_of_a_field_that_is_gone() -> None:
    names = {name for _, name in LEAVES}
    for classed in CLASSES:
        assert any(f"{name}.".startswith(f"{classed}.") for name in names), classed


def test_a_field_without_a_class_is_an_error() -> None:
    with pytest.raises(KeyError):
        class_of("weather.rain")


def test_equal_configs_do_not_differ() -> None:
    for kind in KINDS.values():
        assert difference(kind(), kind()) == []
        refuse_drift(kind(), kind())


def test_a_dimension_taken_out_is_a_difference() -> None:
    full, less = PbtRun(), PbtRun(space={"schedule.peak_lr": "log(3e-4, 3e-2)"})
    gone = [row for row in difference(full, less) if repr(row[2]) == "absent"]
    assert {row[0] for row in gone} == {f"space.{name}" for name in full.space} - {
        "space.schedule.peak_lr"
    }


def test_another_command_cannot_carry_a_run_on() -> None:
    with pytest.raises(UsageError, match="started by pbt, not train"):
        refuse_drift(PbtRun(), TrainRun())
