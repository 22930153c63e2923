"""Conditional dimensions and constraints: parsed strictly, kept by every point."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxhpo.errors import UsageError
from jaxhpo.search import PbtConfig, Space
from jaxhpo.search.explore import explore
from jaxhpo.search.rules import parse_rule

TEXTS = {
    "schedule.kind": "choice(wsd, cosine, constant)",
    "schedule.warmup_steps": "int(0, 100)",
    "schedule.decay_start": "uniform(0, 100) if schedule.kind in (wsd)",
    "schedule.decay_steps": "uniform(0, 100) if schedule.kind == wsd and schedule.decay_start > 50",
    "schedule.floor": "normal(0.5, 0.1) if schedule.kind != constant",
}
RULES = ("schedule.warmup_steps <= schedule.decay_start",)


def space(texts=TEXTS, rules=RULES) -> Space:
    return Space.from_mapping(texts, lambda name: False, list(TEXTS), rules)


def keeps(point) -> bool:
    wsd = point["schedule.kind"] == "wsd"
    late = wsd and point["schedule.decay_start"] > 50
    return (
        ("schedule.decay_start" in point) == wsd
        and ("schedule.decay_steps" in point) == late
        and ("schedule.floor" in point) == (point["schedule.kind"] != "constant")
        and (not wsd or point["schedule.warmup_steps"] <= point["schedule.decay_start"])
    )


@given(st.integers(0, 2**32))
def test_every_drawn_point_keeps_conditions_and_constraints(seed):
    rng = np.random.default_rng(seed)
    points = (space().sample(rng), *space().sample_spread(rng, 3))
    assert all(keeps(point) for point in points)
    assert all(space().check(point) == point for point in points)
    for point in points:
        assert space().decode(space().encode(point)) == pytest.approx(point)


@given(st.integers(0, 2**32))
def test_exploring_keeps_them_too(seed):
    rng = np.random.default_rng(seed)
    config = PbtConfig(explore="perturb", resample_probability=0.5)
    assert keeps(explore(space().sample(rng), space(), config, rng))


def test_texts_with_conditions_are_read_back_equal():
    again = Space.from_mapping(space().to_mapping(), lambda n: False, list(TEXTS), RULES)
    assert again == space()


def test_corners_are_allowed_points():
    assert all(keeps(point) for point in space().corners())


@pytest.mark.parametrize(
    "text",
    [
        "a + 2 * b <= (c - 1) / 3",
        "a < b and b != 3",
        "a in (x, y)",
        "a >= -1.5e-3",
        "a * (b - 2) > 0",
    ],
)
def test_a_rule_printed_is_read_back_equal(text):
    assert parse_rule(str(parse_rule(text))) == parse_rule(text)


def test_arithmetic_is_that_of_school():
    holds = lambda text, **point: parse_rule(text).holds(point)
    assert holds("a + 2 * b == 7", a=1, b=3)
    assert holds("(a + 2) * b == 9", a=1, b=3)
    assert holds("a - b - 1 == -3", a=1, b=3)
    assert not holds("a / b > 0", a=1, b=0), "a quotient by zero satisfies nothing"


@given(st.text(max_size=40))
def test_any_text_is_a_rule_or_refused_in_one_line(text):
    try:
        rule = parse_rule(text)
    except UsageError as error:
        assert "\n" not in str(error)
    else:
        assert parse_rule(str(rule)) == rule


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ("schedule.warmup <= 3", "unknown dimension 'schedule.warmup'; the nearest is"),
        ("schedule.kind < 3", "words have no order"),
        ("schedule.kind == wds", "unknown dimension 'wds'"),
        ("schedule.kind in (wds)", "schedule.kind is never wds; it is one of wsd, cosine"),
        ("1 <= 2", "names no dimension"),
        ("schedule.warmup_steps", "not one comparison"),
        ("schedule.warmup_steps < 1 < 2", "not one comparison"),
        ("schedule.warmup_steps < (1", "parenthesis is not closed"),
        ("schedule.warmup_steps < 1 2", "'2' too many"),
        ("schedule.warmup_steps ** 2 < 1", "'*' is where a number"),
        ("__import__('os').system('x') == 0", "is not understood"),
        ("f(schedule.warmup_steps) < 1", "'(' too many"),
        (" ", "not one comparison"),
        ("(" * 40 + "1 < 2", "too many parentheses"),
        ("schedule.warmup_steps < " + "9" * 2000, "characters; allowed: 1000"),
    ],
)
def test_a_wrong_constraint_is_refused_with_its_reason(rule, reason):
    with pytest.raises(UsageError) as error:
        space(rules=(rule,))
    assert reason in str(error.value) and "\n" not in str(error.value)


def test_conditions_that_depend_on_each_other_are_refused():
    texts = {"a": "uniform(0, 1) if b > 0.5", "b": "uniform(0, 1) if a > 0.5"}
    with pytest.raises(UsageError, match="a, b exist only if each other do"):
        Space.from_mapping(texts, lambda name: False, list(texts))


def test_a_constraint_that_no_point_satisfies_is_refused_in_one_line():
    never = space(rules=("schedule.warmup_steps > 1000",))
    with pytest.raises(UsageError, match=r"none of 10000 random points satisfies schedule\.warm"):
        never.sample(np.random.default_rng(0))


def test_a_point_that_breaks_a_constraint_is_refused_naming_it():
    point = {"schedule.kind": "wsd", "schedule.warmup_steps": 40, "schedule.decay_start": 10.0}
    with pytest.raises(UsageError, match=r"breaks the constraint schedule\.warmup_steps <= "):
        space().check({**point, "schedule.floor": 0.5})


def test_a_value_for_a_dimension_that_does_not_exist_is_refused():
    point = {"schedule.kind": "constant", "schedule.warmup_steps": 40}
    assert space().check(point) == point
    with pytest.raises(UsageError, match=r"'schedule\.floor' is there only if schedule\.kind != "):
        space().check({**point, "schedule.floor": 0.5})
