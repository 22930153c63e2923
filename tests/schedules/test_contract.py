"""The contract of the table of kinds: each entry is run through every law."""

import functools
import typing
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxhpo import schedules
from jaxhpo.schedules import SHAPES, Phase, ScheduleConfig
from jaxhpo.schedules.lowering import lower

STEPS, PEAK = 400, 0.01
BASE = ScheduleConfig(peak_lr=PEAK, warmup_steps=20, floor=0.1)
EXAMPLES = {
    "constant": {},
    "linear": {},
    "polynomial": {"power": 2.0},
    "inverse_sqrt": {"timescale": 5.0},
    "noam": {},
    "cosine": {"power": 1.5},
    "cyclic_cosine": {"cycle_steps": 100.0, "cycle_peak": 0.8},
    "wsd": {},
    "cyclic_wsd": {"cycle_steps": 100.0, "rewarmup_steps": 10.0},
    "multi_step": {"milestones": (200.0, 300.0), "milestone_factor": 0.5},
    "sequence": {"phases": ("hold 100", "cosine 150 to 0.3", "hold 30", "linear 100 to 0.1")},
}
JUMPS = {"cyclic_cosine": (100, 200, 300), "multi_step": (200, 300)}
"""Steps at which a kind says that it jumps."""
LAST = {"constant": 1.0, "multi_step": 0.25, "noam": 20 / 400, "inverse_sqrt": 5 / 385}
"""Last rate as a share of the peak; that of the roots is squared, for steps 400."""

kinds = pytest.mark.parametrize("kind", schedules.KINDS)


def example(kind):
    return replace(BASE, kind=kind, **EXAMPLES[kind])


def rates(kind, steps=None):
    steps = np.arange(STEPS + 50) if steps is None else steps
    return np.asarray(lower(example(kind), STEPS)(steps))


def test_every_kind_of_the_config_is_in_the_table_and_has_an_example():
    named = typing.get_args(typing.get_type_hints(ScheduleConfig)["kind"])
    assert set(schedules.KINDS) == set(EXAMPLES) == set(named)


@kinds
def test_the_warm_up_rises_from_zero_to_the_peak(kind):
    found = rates(kind)
    assert found[0] == 0 and np.all(np.diff(found[:21]) > 0)
    np.testing.assert_allclose(found[:21], PEAK * np.arange(21) / 20, rtol=1e-6)


@kinds
def test_the_peak_is_reached_and_never_passed(kind):
    found = rates(kind)
    np.testing.assert_allclose(found[20], PEAK, rtol=1e-6)
    assert found.max() <= PEAK * (1 + 1e-6) and found.min() >= 0


@kinds
def test_the_last_rate_is_held_after_the_end(kind):
    found = rates(kind)
    share = LAST.get(kind, 0.1)
    if kind in ("noam", "inverse_sqrt"):  # these fall on, but never below the floor
        np.testing.assert_allclose(found[STEPS], PEAK * max(share**0.5, 0.1), rtol=1e-6)
        far = rates(kind, np.array([10**9]))
        np.testing.assert_allclose(far, PEAK * 0.1, rtol=1e-6)
        return
    np.testing.assert_allclose(found[STEPS:], PEAK * share, rtol=1e-6)


@kinds
def test_no_step_jumps_unless_the_kind_says_so(kind):
    found = rates(kind)
    jumps = np.flatnonzero(np.abs(np.diff(found)) > PEAK / 8) + 1
    assert tuple(jumps) == JUMPS.get(kind, ())


def calls():
    """Constructor calls that together name every shape and option, as (function, numbers)."""
    warm = {"peak_lr": 0.02, "warmup_steps": 10.0, "warmup_from": 0.1}
    fall = {"stable_steps": 30.0, "decay_steps": 40.0, "floor": 0.2, **warm}
    for shape in ("linear", "cosine", "1-sqrt", "geometric", "inverse"):
        yield functools.partial(schedules.wsd, decay_shape=shape), fall
    yield functools.partial(schedules.wsd, decay_shape="polynomial"), {**fall, "power": 1.7}
    yield functools.partial(schedules.wsd, decay_shape="exponential"), {**fall, "half_life": 12.0}
    yield schedules.constant, warm
    yield schedules.linear, {"decay_steps": 50.0, "floor": 0.1, **warm}
    yield schedules.polynomial, {"decay_steps": 50.0, "power": 0.7, **warm}
    yield schedules.cosine, {"decay_steps": 50.0, "power": 1.4, "floor": 0.1, **warm}
    yield schedules.inverse_sqrt, {"timescale": 7.0, "floor": 0.5, **warm}
    yield schedules.inverse_sqrt, warm
    yield schedules.noam, {"d_model": 64.0, "warmup_steps": 10.0, "factor": 0.5}

    def restarts(period, growth, **rest):
        return schedules.cyclic_cosine(
            cycle_steps=schedules.growing(period, 3, growth), cycle_peak=0.5, floor=0.1, **rest
        )

    yield restarts, {"period": 20.0, "growth": 1.5, "rewarmup_steps": 5.0, **warm}
    for basis in ("cycle", "cumulative"):

        def cycles(first, second, share, half_life, basis=basis, **rest):
            return schedules.cyclic_wsd(
                cycle_steps=(first, second),
                cycle_decay=share,
                cycle_basis=basis,
                decay_shape="exponential",
                half_life=half_life,
                **rest,
            )

        cyclic = {"first": 40.0, "second": 50.0, "share": 0.2, "half_life": 4.0}
        yield cycles, {**cyclic, "rewarmup_steps": 6.0, **warm}

    def drops(first, second, factor, **rest):
        return schedules.multi_step(milestones=(first, second), factor=factor, **rest)

    yield drops, {"first": 30.0, "second": 60.0, "factor": 0.3, **warm}

    def row(length, begin, end, bend):
        rows = [Phase(shape, length, begin, end, bend) for shape in SHAPES]
        return schedules.sequence(rows)

    yield row, {"length": 9.0, "begin": 0.02, "end": 0.003, "bend": 2.0}


@pytest.mark.parametrize("call", list(calls()))
def test_floats_and_traced_values_agree_and_vmap(call):
    build, numbers = call
    steps = jnp.arange(0, 120, 3)
    plain = build(**numbers)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(plain))
    traced = jax.jit(lambda numbers: build(**numbers)(steps))
    expected = np.asarray(plain(steps))
    np.testing.assert_allclose(traced(numbers), expected, rtol=2e-6)  # sums in float32, not float64
    several = {name: np.float32([value, value * 0.9]) for name, value in numbers.items()}
    mapped = jax.jit(jax.vmap(lambda numbers: build(**numbers)(steps)))(several)
    other = {name: float(np.float32(value) * np.float32(0.9)) for name, value in numbers.items()}
    np.testing.assert_allclose(mapped[0], expected, rtol=2e-6)
    np.testing.assert_allclose(mapped[1], build(**other)(steps), rtol=1e-5, atol=1e-9)


def test_members_may_differ_in_kind_in_one_program():
    each = [lower(example(kind), STEPS, searched=("schedule.kind",)) for kind in EXAMPLES]
    size = schedules.table_size(example("cyclic_wsd"), STEPS, ("schedule.kind",))
    each = [table.padded(size) for table in each]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *each)
    together = jax.jit(jax.vmap(lambda schedule, step: schedule(step), (0, None)))
    for step in (0, 10, 100, 299, 301):
        alone = [schedule(step) for schedule in each]
        np.testing.assert_allclose(together(stacked, step), alone, rtol=1e-6)
    assert together._cache_size() == 1


def test_the_size_of_the_table_is_the_same_for_every_trial():
    searched = ("schedule.kind", "schedule.cycle_steps")
    sizes = {
        len(lower(BASE, STEPS, searched).start),
        schedules.table_size(BASE, STEPS, searched),
        len(
            schedules.lower_to(replace(BASE, kind="cyclic_wsd", cycle_steps=25.0), STEPS, 64).start
        ),
    }
    assert sizes == {64}
    assert len(lower(BASE, STEPS).start) == 4


def test_a_wsd_fork_leaves_its_trunk_where_its_decay_begins():
    trunk = schedules.wsd(PEAK, stable_steps=900.0, decay_steps=80.0, warmup_steps=20.0)
    fork = schedules.wsd(PEAK, stable_steps=480.0, decay_steps=100.0, warmup_steps=20.0)
    steps = np.arange(501)
    np.testing.assert_array_equal(trunk(steps), fork(steps))
    assert 0 < trunk(501) - fork(501) <= PEAK / 100 * 1.001


def test_wsd_s_repeats_and_its_decays_have_the_stated_lengths():
    hold = lambda **more: schedules.cyclic_wsd(1.0, (50.0, 50.0, 100.0), floor=0.5, **more)
    for basis, lengths in (("cycle", (5, 5, 10)), ("cumulative", (5, 10, 20))):
        found = np.asarray(hold(cycle_basis=basis)(np.arange(200)))
        falling = [np.sum(found[a:b] < 1) for a, b in ((0, 51), (51, 101), (101, 200))]
        # the first step of a decay still has the peak, and the jump back follows its last
        assert tuple(count + 1 for count in falling) == lengths
        assert found[50] == found[100] == 1.0


def test_a_rewarm_up_begins_where_the_decay_ended():
    table = schedules.cyclic_wsd(
        1.0, (100.0, 100.0), 0.2, decay_shape="exponential", half_life=10.0, rewarmup_steps=20.0
    )
    found = np.asarray(table(np.arange(200)))
    np.testing.assert_allclose(found[[99, 100, 120]], [0.5**1.9, 0.25, 1.0], rtol=1e-6)
    np.testing.assert_allclose(found[110], 0.625, rtol=1e-6)


def test_steps_past_2_to_31_tokens_do_not_overflow():
    config = ScheduleConfig(
        kind="cosine", unit="tokens", peak_lr=1.0, warmup_steps=4e9, decay_steps=4e12, floor=0.1
    )
    table = lower(schedules.in_steps(config, 4_000_000), 2_000_000)
    step = jnp.int32(1000 + 500_000)
    np.testing.assert_allclose(jax.jit(table)(step), 0.55, rtol=1e-6)
    np.testing.assert_allclose(table(jnp.int32(2**31 - 1)), 0.1, rtol=1e-6)
    np.testing.assert_allclose(table(3_000_000_000), 0.1, rtol=1e-6)
    forever = schedules.inverse_sqrt(1.0, 100.0)
    np.testing.assert_allclose(forever(jnp.int32(2**31 - 1)), (100 / 2**31) ** 0.5, rtol=1e-6)


def test_an_optax_chain_takes_a_schedule_as_it_is():
    import optax

    optimizer = optax.sgd(schedules.linear(1.0, decay_steps=4.0))
    state = optimizer.init(jnp.zeros(1))
    made = []
    for _ in range(5):
        update, state = optimizer.update(jnp.ones(1), state)
        made.append(float(update[0]))
    assert made == [-1.0, -0.75, -0.5, -0.25, 0.0]
