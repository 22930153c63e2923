"""Tokens become steps in one place, exactly, and a schedule over tokens stays one under a ramp."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxhpo import schedules
from jaxhpo.errors import UsageError
from jaxhpo.schedules import Batches, ScheduleConfig

RAMP = Batches(((0, 100), (1000, 300), (1300, 500), (1301, 700)))

stages = st.lists(
    st.tuples(st.integers(1, 10**13), st.integers(1, 10**8)), max_size=5, unique_by=lambda s: s[0]
).map(lambda rest: Batches(((0, 7), *sorted(rest))))


def test_a_stage_begins_with_the_first_step_that_has_its_tokens_behind_it():
    assert [RAMP.tokens(step) for step in (0, 1, 10, 11, 12, 13)] == [
        0,
        100,
        1000,
        1300,
        1800,
        2500,
    ]
    assert RAMP.corners == ((0, 0, 100), (10, 1000, 300), (11, 1300, 500), (12, 1800, 700))


def test_a_stage_without_a_step_is_passed_over():
    assert Batches(((0, 1000), (10, 2), (20, 30))).corners == ((0, 0, 1000), (1, 1000, 30))


@given(batches=stages, step=st.integers(0, 10**9))
def test_steps_undo_tokens(batches, step):
    tokens = batches.tokens(step)
    assert batches.steps(tokens) == step
    assert isinstance(tokens, int) and batches.tokens(step + 1) > tokens


def test_a_batch_ramp_is_megatrons():
    found = schedules.ramp(2, 8, 2, over=30, sequence=10)
    assert found.stages == ((0, 20), (100, 40), (200, 60), (300, 80))
    with pytest.raises(UsageError, match="ramp: 2 to 9 by 2"):
        schedules.ramp(2, 9, 2, over=30)


@pytest.mark.parametrize("wrong", [(), ((5, 1),), ((0, 1), (9, 2), (9, 3)), ((0, 0),)])
def test_stages_that_can_not_be_are_refused(wrong):
    with pytest.raises(UsageError, match="batches: "):
        Batches(wrong)


def test_lengths_in_tokens_are_lengths_in_steps_times_the_batch():
    steps = ScheduleConfig(kind="cyclic_wsd", cycle_steps=(100.0, 300.0), warmup_steps=10.0)
    tokens = ScheduleConfig(
        kind="cyclic_wsd", unit="tokens", cycle_steps=(51_200.0, 153_600.0), warmup_steps=5120.0
    )
    assert schedules.in_steps(tokens, 512) == steps and schedules.in_steps(steps, 512) is steps


def test_a_length_that_was_meant_in_steps_is_refused():
    with pytest.raises(UsageError, match=r"warmup_steps=50 is less than one step, which is 4,096"):
        schedules.in_steps(ScheduleConfig(unit="tokens"), 4096)
    with pytest.raises(UsageError, match=r"schedule.phases=300 is less than one step"):
        config = ScheduleConfig(unit="tokens", warmup_steps=0.0, phases=("hold 300",))
        schedules.in_steps(config, 4096)
    with pytest.raises(UsageError, match=r"schedule.unit=tokens: convert it first"):
        schedules.lower(ScheduleConfig(unit="tokens"), 600)
    with pytest.raises(UsageError, match=r"schedule.unit=steps; allowed over a batch ramp: tokens"):
        schedules.over_tokens(ScheduleConfig(), 10**6, RAMP)


@settings(max_examples=20, deadline=None)
@given(
    total=st.integers(10**10, 10**13),
    warm=st.floats(0.001, 0.1),
    grown=st.floats(0.001, 0.5),
    batch=st.integers(10**5, 10**6),
)
def test_under_a_ramp_the_rate_is_that_of_the_tokens_seen(total, warm, grown, batch):
    batches = Batches(
        ((0, batch), (int(total * grown / 2), 2 * batch), (int(total * grown), 8 * batch))
    )
    config = ScheduleConfig(
        kind="cosine", unit="tokens", peak_lr=1.0, warmup_steps=warm * total, floor=0.1
    )
    table = schedules.over_tokens(config, total, batches)
    steps = [int(batches.steps(int(total * share))) for share in np.linspace(0, 1, 50)]
    seen = np.array([batches.tokens(step) for step in steps], np.float64)
    done = np.clip((seen / total - warm) / (1 - warm), 0, 1)
    expected = np.where(
        seen < warm * total, seen / (warm * total), 0.55 + 0.45 * np.cos(np.pi * done)
    )
    # one rounding of the tokens seen to float32 comes to a few millionths of a cosine
    np.testing.assert_allclose(table(np.float32(steps)), expected, rtol=3e-6)
