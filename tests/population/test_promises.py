"""What the engine promises about members: values never recompile, and nobody harms a neighbour."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from jaxhpo.population.rows import make_rows
from tests.compilations import counted
from tests.population.conftest import (
    MEMBERS,
    STEPS,
    assert_equal_bits,
    born,
    differ,
    make_engine,
    row,
)


@pytest.fixture(scope="module")
def trained(engine, newborn_rows, batches):
    rows = newborn_rows()
    population, metrics = engine.train(born(engine, rows), rows, batches)
    return jax.device_get(population), jax.device_get(metrics)


def test_new_values_lengths_seeds_and_parents_compile_nothing(
    engine, newborn_rows, batches, held_out, points, lower
):
    rows = newborn_rows()
    population, _ = engine.train(born(engine, rows), rows, batches)
    engine.probe(population, rows, batches, held_out)
    engine.evaluate(population, rows, held_out)
    other = make_rows(
        lower(points[::-1]),
        seeds=[9, 8, 7, 6],
        steps=[1, 2, 3, 4],
        probe=[2, 0, 1, 1],
        parents=[3, 3, 0, 1],
        newborn=[False, True, False, False],
    )
    with counted() as compilations:
        population = engine.assemble(population, other)
        population, _ = engine.train(population, other, batches)
        jax.block_until_ready(engine.probe(population, other, batches, held_out))
        jax.block_until_ready(engine.evaluate(population, other, held_out))
    assert compilations == []


def test_a_member_equals_the_same_trial_alone_to_the_bit(
    engine, newborn_rows, batches, points, trained
):
    population, metrics = trained
    for place in (0, 3):
        alone_rows = newborn_rows([points[place]], seeds=[place])
        alone = make_engine(engine.task, members=1)
        solo, curves = alone.train(born(alone, alone_rows), alone_rows, batches)
        assert_equal_bits(row(solo, 0), row(population, place))
        assert_equal_bits(row(curves, 0), row(metrics, place))


def test_a_member_is_the_same_wherever_it_sits(engine, newborn_rows, batches, points, trained):
    rows = newborn_rows(points[::-1], seeds=[3, 2, 1, 0])
    population, _ = engine.train(born(engine, rows), rows, batches)
    for place in range(MEMBERS):
        assert_equal_bits(row(population, MEMBERS - 1 - place), row(trained[0], place))


@pytest.mark.parametrize(("devices", "chunk"), [(1, MEMBERS), (2, 2), (8, 1)])
def test_chunks_and_shards_change_nothing_beyond_float_tolerance(
    engine, newborn_rows, batches, trained, devices, chunk
):
    other = make_engine(engine.task, devices=devices, chunk=chunk)
    rows = newborn_rows()
    population, metrics = other.train(born(other, rows), rows, batches)
    for place in range(MEMBERS):  # sums in another order: Adam turns 1e-7 in a gradient into 1e-5
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=5e-5),
            row(population, place),
            row(trained[0], place),
        )
        found, expected = np.asarray(metrics["loss"])[place], trained[1]["loss"][place]
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_a_diverged_member_leaves_the_others_their_bits(
    engine, newborn_rows, batches, held_out, trained, bad
):
    rows = newborn_rows()
    schedule = jax.tree.map(np.copy, rows.hyperparams.schedule)
    schedule.begin[1] = schedule.end[1] = bad
    rows = replace(rows, hyperparams=replace(rows.hyperparams, schedule=schedule))
    population, metrics = engine.train(born(engine, rows), rows, batches)
    assert not np.isfinite(np.asarray(metrics["loss"])[1, -1])
    healthy = [0, 2, 3]
    for place in healthy:
        assert_equal_bits(row(population, place), row(trained[0], place))
    # exploit: the broken place takes over a healthy one and is healthy from its first bit on
    copying = replace(rows, parents=np.array([0, 2, 2, 3], np.int32), newborn=np.zeros(4, bool))
    population = engine.assemble(population, copying)
    for place in healthy:
        assert_equal_bits(row(population, place), row(trained[0], place))
    assert_equal_bits(row(population, 1), row(trained[0], 2))


def test_exploit_takes_weights_and_moments_together_without_touching_the_host(
    engine, newborn_rows, batches, trained
):
    rows = newborn_rows()
    population, _ = engine.train(born(engine, rows), rows, batches)
    copying = engine.place(
        replace(rows, parents=np.array([3, 1, 3, 3], np.int32), newborn=np.zeros(4, bool))
    )
    with jax.transfer_guard("disallow"):
        population = jax.block_until_ready(engine.assemble(population, copying))
    for place, parent in enumerate([3, 1, 3, 3]):
        assert_equal_bits(row(population, place), row(trained[0], parent))


def test_a_copy_draws_its_own_randomness(engine, newborn_rows, batches):
    rows = newborn_rows()
    population, _ = engine.train(born(engine, rows), rows, batches)
    same = jax.tree.map(lambda x: np.repeat(x[1:2], 4, 0), rows.hyperparams)
    twins = replace(
        rows,
        hyperparams=same,
        parents=np.ones(4, np.int32),
        newborn=np.zeros(4, bool),
        seeds=np.array([1, 1, 50, 51], np.uint32),
    )
    population, _ = engine.train(engine.assemble(population, twins), twins, batches)
    assert_equal_bits(row(population, 0), row(population, 1))
    assert differ(row(population, 1).params, row(population, 2).params), "dropout is the parent's"
    assert differ(row(population, 2).params, row(population, 3).params)


def test_what_a_copy_does_not_keep_is_newborn(engine, newborn_rows, batches, trained):
    rows = newborn_rows()
    fresh = jax.device_get(born(engine, rows))
    population, _ = engine.train(born(engine, rows), rows, batches)
    keep = np.ones((4, 3), bool)
    keep[1], keep[2] = [True, False, True], [True, False, False]
    partly = replace(
        rows, parents=np.array([0, 3, 3, 3], np.int32), newborn=np.zeros(4, bool), keep=keep
    )
    found = jax.device_get(engine.assemble(population, partly))
    assert_equal_bits(row(found, 1).params, row(trained[0], 3).params)
    assert_equal_bits(row(found, 1).moments, row(fresh, 1).moments)
    assert found.step.tolist()[:4] == [STEPS, STEPS, 0, STEPS]


def test_a_row_is_frozen_bit_for_bit_after_its_own_steps(engine, newborn_rows, batches, trained):
    for other in (engine, make_engine(engine.task, devices=1, chunk=MEMBERS)):
        rows = newborn_rows(steps=[2, STEPS, 0, STEPS])
        population, metrics = other.train(born(other, rows), rows, batches)
        short = newborn_rows(steps=[2, 2, 0, 2])
        expected, _ = other.train(born(other, short), short, batches)
        for place in (0, 2):
            assert_equal_bits(row(population, place), row(expected, place))
        assert np.isfinite(np.asarray(metrics["loss"])).sum(1).tolist()[:4] == [2, STEPS, 0, STEPS]
        assert np.asarray(population.step).tolist()[:4] == [2, STEPS, 0, STEPS]


def test_a_probe_cools_a_copy_and_leaves_the_population_alone(
    engine, newborn_rows, batches, held_out
):
    rows = newborn_rows(probe=[0, 3, 3, 3])
    population, _ = engine.train(born(engine, rows), rows, batches)
    before = jax.device_get(population)
    raw, cooled = map(np.asarray, engine.probe(population, rows, batches, held_out))
    assert_equal_bits(jax.device_get(population), before)
    plain = np.asarray(engine.evaluate(population, rows, held_out))
    assert_equal_bits(raw[:MEMBERS], plain[:MEMBERS])
    assert_equal_bits(cooled[0], raw[0])
    assert (cooled[1:MEMBERS] != raw[1:MEMBERS]).all()


def test_a_probe_equals_a_training_whose_rate_falls_to_zero(
    engine, newborn_rows, batches, held_out, lower, points
):
    rows = newborn_rows(probe=[3] * MEMBERS)
    population, _ = engine.train(born(engine, rows), rows, batches)
    _, cooled = engine.probe(population, rows, batches, held_out)
    falling = [
        {
            **point,
            "schedule.decay_start": float(STEPS),
            "schedule.decay_steps": 3.0,
        }
        for point in points
    ]
    decay = make_rows(lower(falling), seeds=range(MEMBERS), steps=[3] * MEMBERS)
    population, _ = engine.train(population, decay, batches)
    losses = engine.evaluate(population, decay, held_out)
    np.testing.assert_allclose(cooled, losses, rtol=1e-5)  # another program, another fusion


def test_gradients_of_micro_batches_add_up_to_those_of_the_batch(
    engine, newborn_rows, batches, points
):
    still = [{**point, "dropout.residual": 0.0} for point in points]  # micro-batches draw apart
    rows = newborn_rows(still)
    found, _ = engine.train(born(engine, rows), rows, batches)
    split = make_engine(engine.task, accumulate=2)
    expected, _ = split.train(born(split, rows), rows, batches)
    for place in range(MEMBERS):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=5e-5),
            row(found, place).params,
            row(expected, place).params,
        )
