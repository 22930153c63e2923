"""Who sits where: one place each, shards balanced, idle chunks kept idle, nobody moved in vain."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from jaxhpo.search.plan import Assignment, Plan, Scheduler
from jaxhpo.study.placement import Shape, settle
from jaxhpo.study.sizes import lane_steps, rehearse, worth_compiling

SHAPES = st.builds(
    lambda shards, chunks, chunk: Shape(shards * chunks * chunk, shards, chunk),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 4),
)


@st.composite
def situations(draw):
    """A shape, who sat where, and who is to train for how long now."""
    shape = draw(SHAPES)
    before = draw(st.permutations([*range(shape.size), *[None] * shape.size]))[: shape.size]
    known = [trial for trial in before if trial is not None]
    staying = [trial for trial in known if draw(st.booleans())]
    room = shape.size - len(staying)
    trials = [*staying, *range(100, 100 + draw(st.integers(0, room)))]
    steps = st.sampled_from([0, 1, 3, 9, 27])
    return shape, tuple(before), {trial: draw(steps) for trial in trials}


@settings(max_examples=300, deadline=None)
@given(situations())
def test_every_trial_has_one_place_and_no_shard_has_much_more_to_do(situation):
    shape, before, work = situation
    places = settle(before, work, shape)
    assert len(places) == shape.size
    assert sorted(t for t in places if t is not None) == sorted(work)
    load = [0] * shape.shards
    for place, trial in enumerate(places):
        load[shape.shard_of(place)] += work.get(trial, 0)
    assert max(load) - min(load) <= max(work.values(), default=0)


@settings(max_examples=300, deadline=None)
@given(situations())
def test_no_order_within_a_shard_would_make_fewer_steps(situation):
    shape, before, work = situation
    steps = [work.get(trial, 0) for trial in settle(before, work, shape)]
    block = lambda shard: steps[shard * shape.block : (shard + 1) * shape.block]
    ordered = [n for s in range(shape.shards) for n in sorted(block(s), reverse=True)]
    assert shape.lane_steps(steps) == shape.lane_steps(ordered)


@settings(max_examples=200, deadline=None)
@given(situations())
def test_who_sits_well_stays(situation):
    shape, before, work = situation
    once = settle(before, work, shape)
    assert settle(once, work, shape) == once


@settings(max_examples=100, deadline=None)
@given(situations())
def test_nobody_moves_where_all_work_alike(situation):
    shape, before, _ = situation
    shape = Shape(shape.size, 1, shape.chunk)
    trials = [trial for trial in before if trial is not None]
    assert settle(before, dict.fromkeys(trials, 0), shape) == before
    full = tuple(reversed(range(shape.size)))
    assert settle(full, dict.fromkeys(range(shape.size), 9), shape) == full


def test_only_what_must_move_moves():
    eight = tuple(range(8))
    half = {trial: 9 if trial < 3 else 0 for trial in eight}
    places = settle(eight, half, Shape(8, shards=2))
    assert sum(a != b for a, b in zip(eight, places, strict=True)) == 2, "one goes, one comes"


def test_newcomers_take_the_free_places_in_order():
    assert settle((0, 1, 2, 3), {0: 5, 7: 5, 2: 5, 8: 5}, Shape(4, 2)) == (0, 7, 2, 8)


class Halving(Scheduler):
    """Sixteen trials, of which every rung lets go of half."""

    extent = foreseen = None

    def first(self):
        self.left = 16
        return self.plan()

    def plan(self):
        return Plan(tuple(Assignment(i, {}, None, 10, i) for i in range(self.left)))

    def next(self, report):
        self.left //= 2
        return self.plan() if self.left else None


def test_a_rehearsal_says_how_many_train_for_how_long():
    assert rehearse(Halving()) == tuple((n, n, 10) for n in (16, 8, 4, 2, 1))


def test_smaller_populations_are_compiled_where_they_save_more_than_they_cost():
    rounds = rehearse(Halving())
    whole = [Shape(n, 1, n) for n in (16, 8, 4)]
    assert lane_steps(rounds, whole[:1]) == 5 * 16 * 10
    assert lane_steps(rounds, whole) == 10 * (16 + 8 + 4 + 4 + 4)
    assert worth_compiling(rounds, whole, math.inf, "gpu") == tuple(whole)
    assert worth_compiling(rounds, whole, 1.0, "gpu") == (whole[0],)


def test_on_a_cpu_idle_rows_cost_nothing_and_one_size_is_compiled():
    shapes = [Shape(n, 2, 1) for n in (16, 8, 4)]
    assert worth_compiling(rehearse(Halving()), shapes, 1e30, "cpu") == (shapes[0],)
