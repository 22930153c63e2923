"""Distributions, their texts, and spaces of them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxhpo.errors import UsageError
from jaxhpo.search import Choice, Dimension, Integer, Log, LogInteger, Normal, Space, Uniform
from jaxhpo.search.texts import parse

floats = st.floats(allow_nan=False, allow_infinity=False)
words = st.from_regex(r"[a-z][a-z0-9_.]{0,8}", fullmatch=True).filter(
    lambda word: word not in ("nan", "inf", "infinity")
)


def valid(kind, *arguments):
    try:
        return kind(*arguments)
    except UsageError:
        return None


uniforms = st.builds(lambda a, b: valid(Uniform, min(a, b), max(a, b)), floats, floats)
positive = st.floats(1e-300, 1e300)
logs = st.builds(lambda a, b: valid(Log, min(a, b), max(a, b)), positive, positive)
whole = st.integers(-(2**31) + 1, 2**31 - 1)
integers = st.builds(lambda a, b: valid(Integer, min(a, b), max(a, b)), whole, whole)
counts = st.integers(1, 2**31 - 1)
logints = st.builds(lambda a, b: valid(LogInteger, min(a, b), max(a, b)), counts, counts)
normals = st.one_of(
    st.builds(lambda m, d: valid(Normal, m, d), st.floats(-1e6, 1e6), st.floats(1e-3, 1e3)),
    st.builds(
        lambda m, d, a, b: valid(Normal, m, d, m + min(a, b) * d, m + max(a, b) * d),
        st.floats(-100, 100),
        st.floats(1e-2, 100),
        st.floats(-5, 5),
        st.floats(-5, 5),
    ),
)
choices = st.lists(st.one_of(words, whole, floats), min_size=1, max_size=5, unique=True).map(
    lambda values: valid(Choice, tuple(values))
)
distributions = st.one_of(uniforms, logs, integers, logints, normals, choices).filter(
    lambda d: d is not None
)
units = st.floats(-1, 2)


@given(distributions)
def test_a_text_printed_is_read_back_equal(distribution):
    assert parse("x", str(distribution)) == distribution


@given(st.text(max_size=30) | st.from_regex(r"(log|int|uniform|choice)\([-0-9a-z., e]*\)"))
def test_any_text_is_read_or_refused_in_one_line(text):
    try:
        distribution = parse("x", text)
    except UsageError as error:
        assert str(error).startswith("space x = ") and "choice(a, b, ...)" in str(error)
        assert "\n" not in str(error)
    else:
        assert parse("x", str(distribution)) == distribution


@given(distributions, units)
def test_a_decoded_value_is_inside_the_bounds_and_plain(distribution, unit):
    value = distribution.decode(unit)
    assert distribution.contains(value)
    assert type(value) in (float, int, str)


@given(distributions, st.floats(0, 1))
def test_encoding_and_decoding_give_the_value_back(distribution, unit):
    value = distribution.decode(unit)
    encoded = distribution.encode(value)
    assert -1e-9 <= encoded <= 1 + 1e-9
    again = distribution.decode(encoded)
    if isinstance(value, float) and isinstance(distribution, Uniform):
        # one rounding of the range and one of the value
        assert abs(again - value) <= 4e-16 * max(abs(distribution.low), abs(distribution.high)) * 4
    elif isinstance(distribution, Log):
        assert again == pytest.approx(value, rel=1e-11)  # logarithms up to 690, of 2e-16 relative
    elif isinstance(distribution, Normal):
        # the share of a value four deviations out is known to 1e-12 of its density there
        width = 1e-9 * distribution.deviation + 1e-15 * abs(distribution.mean)
        assert abs(again - value) <= width
    else:
        assert again == value


@given(distributions, st.floats(0, 1), st.sampled_from([0.5, 0.8, 1.2, 2.0]))
def test_a_scaled_value_stays_inside_the_bounds(distribution, unit, factor):
    value = distribution.scaled(distribution.decode(unit), factor)
    assert distribution.contains(value)
    assert type(value) in (float, int, str)


@pytest.mark.parametrize("kind", [Uniform, Log])
@pytest.mark.parametrize("bounds", [(1.0, math.inf), (math.nan, 1.0), ("1", 2.0)])
def test_bounds_built_in_python_must_be_finite_numbers(kind, bounds):
    with pytest.raises(UsageError, match="is not a finite number"):
        kind(*bounds)


@pytest.mark.parametrize("form", ["int(1, {})", "choice(1, {})", "log(1, {})"])
def test_a_number_of_thousands_of_digits_is_refused_like_any_other(form):
    with pytest.raises(UsageError, match="is not a"):
        parse("x", form.format("9" * 5000))


def test_log_is_uniform_in_the_logarithm():
    log = Log(1e-4, 1e-1)
    assert [log.decode(u) for u in (0, 1 / 3, 1)] == pytest.approx([1e-4, 1e-3, 1e-1], rel=1e-12)


def test_integers_and_choices_are_equally_likely_bins():
    assert [Integer(1, 4).decode(u) for u in (0, 0.24, 0.26, 0.74, 0.76, 1)] == [1, 1, 2, 3, 4, 4]
    assert [Choice(("a", "b")).decode(u) for u in (0, 0.49, 0.51, 1)] == ["a", "a", "b", "b"]


def test_whole_numbers_on_a_log_scale_are_as_likely_as_their_logarithms_are_wide():
    draws = np.random.default_rng(0).random(20_000)
    counts = np.bincount([LogInteger(1, 64).decode(u) for u in draws], minlength=65)
    width = lambda low, high: np.log((high + 0.5) / (low - 0.5)) / np.log(64.5 / 0.5)
    for low, high in ((1, 1), (2, 7), (8, 64)):
        share = counts[low : high + 1].sum() / 20_000
        assert share == pytest.approx(width(low, high), abs=0.015)  # four deviations
    assert counts[0] == 0 and counts[1] and counts[64]


def test_a_normal_dimension_is_normal_between_its_cuts():
    normal = Normal(2.0, 0.5)
    assert [normal.decode(u) for u in (0, 0.5, 1)] == pytest.approx([0.0, 2.0, 4.0])
    draws = [normal.decode(u) for u in np.random.default_rng(0).random(20_000)]
    assert np.mean(draws) == pytest.approx(2.0, abs=0.015)  # four standard errors
    assert np.std(draws) == pytest.approx(0.5, rel=0.02)
    assert 0.5 <= min(Normal(0.5, 1, 0.5, 0.7).decode(u) for u in (0, 0.5, 1)) <= 0.7


def test_log_scales_by_the_factor_and_clips():
    assert Log(1e-4, 1e-1).scaled(1e-3, 1.2) == pytest.approx(1.2e-3)
    assert Log(1e-4, 1e-1).scaled(0.09, 1.2) == 0.1


def test_a_rate_of_zero_can_come_back():
    assert Uniform(0, 0.3).scaled(0.0, 1.2) == pytest.approx(0.03)
    assert Uniform(0, 0.3).scaled(0.0, 0.8) == 0.0
    assert Uniform(0, 0.3).scaled(0.15, 1.2) == pytest.approx(0.15 * 1.2)


def test_a_scaled_whole_number_moves_by_at_least_one():
    assert [Integer(0, 99).scaled(2, f) for f in (1.2, 0.8)] == [3, 1]
    assert [Integer(0, 99).scaled(50, f) for f in (1.2, 0.8)] == [60, 40]
    assert [Integer(0, 3).scaled(3, f) for f in (1.2, 0.8)] == [3, 2]


def test_a_scaled_choice_is_a_neighbour():
    choice = Choice((8, 16, 32))
    assert [choice.scaled(16, f) for f in (1.2, 0.8)] == [32, 8]
    assert [choice.scaled(32, f) for f in (1.2, 0.8)] == [32, 16]


def test_choice_reads_numbers_as_numbers_and_words_as_words():
    assert parse("x", "choice(1, 2.5, adamw, 1e-3)").values == (1, 2.5, "adamw", 1e-3)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("log(1e-1, 1e-4)", "low=0.1 must be below high=0.0001"),
        ("uniform(0.3, 0.3)", "low=0.3 must be below high=0.3"),
        ("log(0, 1)", "low=0.0 must be above zero"),
        ("log(-1, 1)", "low=-1.0 must be above zero"),
        ("uniform(0, inf)", "'inf' is not a finite number"),
        ("uniform(nan, 1)", "'nan' is not a finite number"),
        ("uniform(0, 1e999)", "'1e999' is not a finite number"),
        ("uniform(-1e308, 1e308)", "range from low to high is not a finite number"),
        ("int(1.5, 4)", "'1.5' is not a whole number"),
        ("int(1, 99999999999)", "beyond 2147483647"),
        ("int(1, 4, 2)", "takes two bounds, got 3"),
        ("choice()", "at least one value"),
        ("choice(a, a)", "given twice"),
        ("choice(a,, b)", "'' is neither"),
        ("choice(1, inf)", "'inf' is neither"),
        ("normal(0)", "normal takes mean and deviation"),
        ("normal(0, 0)", "deviation=0.0 must be above zero"),
        ("normal(0, 1, 5, 9)", "nothing lies between"),
        ("logint(0, 9)", "low=0 must be above zero"),
        ("logint(1.5, 9)", "'1.5' is not a whole number"),
        ("uniform(0, 1) if", "not a distribution"),
        ("__import__('os')", "not a distribution"),
        ("0.1", "not a distribution"),
    ],
)
def test_a_wrong_text_is_refused_with_dimension_text_reason_and_forms(text, reason):
    with pytest.raises(UsageError) as error:
        parse("schedule.peak_lr", text)
    line = str(error.value)
    assert line.startswith(f"space schedule.peak_lr = {text!r}: ")
    assert reason in line and "log(low, high)" in line


KNOWN = ["schedule.peak_lr", "schedule.floor", "dropout.residual", "model.num_layers"]


def make(**texts: str) -> Space:
    names = {name.replace("__", "."): text for name, text in texts.items()}
    return Space.from_mapping(names, lambda name: name.startswith("model."), KNOWN)


def test_a_space_is_printed_and_read_back_equal():
    space = make(schedule__peak_lr="log(1e-4, 1e-1)", model__num_layers="int(1, 4)")
    again = Space.from_mapping(space.to_mapping(), lambda name: name.startswith("model."), KNOWN)
    assert again == space
    assert space.static == ("model.num_layers",)


def test_an_unknown_dimension_names_the_nearest():
    with pytest.raises(UsageError, match=r"'schedule\.peek_lr'.*'schedule\.peak_lr'"):
        make(schedule__peek_lr="log(1e-4, 1e-1)")


def test_a_dimension_given_twice_is_refused():
    dimension = Dimension("a", Uniform(0, 1))
    with pytest.raises(UsageError, match="'a' is given twice"):
        Space((dimension, dimension))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"schedule.peak_lr": 0.5}, r"schedule\.peak_lr=0\.5 is outside log\(0\.0001, 0\.1\)"),
        ({"schedule.peak_lr": math.nan}, "=nan is outside"),
        ({"schedule.peak_lr": "big"}, "='big' is outside"),
        ({"schedule.peak_lr": True}, "=True is outside"),
        ({"model.num_layers": 2.0}, r"=2\.0 is outside int\(1, 4\)"),
        ({"schedule.peak": 1.0}, r"unknown dimension 'schedule\.peak'.*'schedule\.peak_lr'"),
    ],
)
def test_a_point_outside_the_space_is_refused_by_name_value_and_bounds(change, reason):
    space = make(schedule__peak_lr="log(1e-4, 1e-1)", model__num_layers="int(1, 4)")
    point = {"schedule.peak_lr": 1e-3, "model.num_layers": 2}
    assert space.check(point) == point
    with pytest.raises(UsageError, match=reason):
        space.check(point | change)


def test_a_point_with_a_missing_value_is_refused():
    with pytest.raises(UsageError, match=r"no value for dimension 'schedule\.floor'"):
        make(schedule__floor="uniform(0, 1)").check({})


def test_a_checked_point_has_plain_values():
    space = make(schedule__floor="uniform(0, 1)", model__num_layers="int(1, 4)")
    checked = space.check({"schedule.floor": np.float32(0.5), "model.num_layers": np.int64(3)})
    assert [type(value) for value in checked.values()] == [float, int]


def test_the_space_decodes_what_it_encoded():
    space = make(schedule__peak_lr="log(1e-4, 1e-1)", model__num_layers="int(1, 4)")
    point = space.sample(np.random.default_rng(0))
    again = space.decode(space.encode(point))
    assert again == pytest.approx(point, rel=1e-12)


@given(st.integers(1, 64), st.integers(0, 1000))
def test_spread_points_fall_in_every_share_of_every_dimension(count, seed):
    space = make(schedule__floor="uniform(0, 1)", dropout__residual="uniform(0, 1)")
    points = space.sample_spread(np.random.default_rng(seed), count)
    for name in space.names:
        shares = sorted(min(int(point[name] * count), count - 1) for point in points)
        assert shares == list(range(count))
