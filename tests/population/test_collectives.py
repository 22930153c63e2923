"""Bytes between devices, from the compiler's text: by hand, and of the engine's own program."""

import pytest

from jaxhpo.population.chips import CHIPS
from jaxhpo.population.collectives import axes_of, groups_of, read
from jaxhpo.population.hlo import Instruction, parse, type_bytes

MESH = {"member": 2, "data": 4}

BY_HAND = """\
HloModule by_hand, num_partitions=8

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%layer (p: (s32[], f32[8,16])) -> (s32[], f32[8,16]) {
  %p = (s32[], f32[8,16]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %x = f32[8,16]{1,0} get-tuple-element(%p), index=1
  %reduced = f32[8,16]{1,0} all-reduce(%x), channel_id=1, replica_groups=[2,4]<=[8], \
use_global_device_ids=true, to_apply=%add, metadata={op_name="a, b=(c"}
  ROOT %t = (s32[], f32[8,16]{1,0}) tuple(%i, %reduced)
}

%wrapped (q: bf16[4,16]) -> bf16[4,16] {
  %q = bf16[4,16]{1,0} parameter(0)
  ROOT %exchanged = bf16[4,16]{1,0} all-to-all(%q), replica_groups={{0,1,2,3},{4,5,6,7}}
}

%step (s: (s32[], f32[8,16])) -> (s32[], f32[8,16]) {
  %s = (s32[], f32[8,16]{1,0}) parameter(0)
  %small = bf16[4,16]{1,0} constant({...})
  %begin = ((bf16[4,16]{1,0}), bf16[4,16]{1,0}, u32[]) async-start(%small), calls=%wrapped
  %end = bf16[4,16]{1,0} async-done(%begin), calls=%wrapped
  %gather = (bf16[4,16]{1,0}, bf16[8,16]{1,0}) all-gather-start(%small), dimensions={0}, \
replica_groups=[4,2]<=[2,4]T(1,0)
  %gathered = bf16[8,16]{1,0} all-gather-done(%gather)
  %send = (bf16[4,16]{1,0}, bf16[4,16]{1,0}, u32[], u32[]) collective-permute-start(%small), \
source_target_pairs={{0,1},{1,2},{2,3},{3,0}}
  %sent = bf16[4,16]{1,0} collective-permute-done(%send)
  %scattered = f32[2,16]{1,0} reduce-scatter(%end), replica_groups=[2,4]<=[8], to_apply=%add
  ROOT %layers = (s32[], /*index=1*/f32[8,16]{1,0}) while(%s), condition=%less, body=%layer, \
backend_config={"known_trip_count":{"n":"12"},"known_init_step":{"init":"0"}}
}

%less (c: (s32[], f32[8,16])) -> pred[] {
  %c = (s32[], f32[8,16]{1,0}) parameter(0)
  ROOT %yes = pred[] constant(true)
}

ENTRY %main (arg: (s32[], f32[8,16])) -> (s32[], f32[8,16]) {
  %arg = (s32[], f32[8,16]{1,0}) parameter(0)
  %seed = u32[4]{0} constant({1, 2, 3, 4})
  %everyone = u32[32]{0} all-gather(%seed), dimensions={0}, replica_groups={}
  ROOT %steps = (s32[], f32[8,16]{1,0}) while(%arg), condition=%less, body=%step
}
"""


def test_collectives_count_as_often_as_the_loops_around_them_turn_within_one_step():
    found = {each.name: each for each in read(BY_HAND, MESH).collectives}
    said = {
        name: (each.kind, each.axes, each.group, each.operand, each.count, each.per_step, each.sent)
        for name, each in found.items()
    }
    floats, halves = 8 * 16 * 4, 4 * 16 * 2
    assert said == {
        "everyone": ("all-gather", ("member", "data"), 8, 16, 1, False, 7 * 16),
        "exchanged": ("all-to-all", ("data",), 4, halves, 1, True, halves * 3 / 4),
        "gather": ("all-gather", ("member",), 2, halves, 1, True, halves),
        "send": ("collective-permute", ("data",), 2, halves, 1, True, halves),
        "scattered": ("reduce-scatter", ("data",), 4, halves, 1, True, halves * 3 / 4),
        "reduced": ("all-reduce", ("data",), 4, floats, 12, True, 12 * floats * 2 * 3 / 4),
    }


def test_bytes_of_a_step_are_summed_by_axis_and_those_of_a_segment_kept_apart():
    whole = read(BY_HAND, MESH)
    assert whole.sent() == {("data",): 128 * 2.5 + 12 * 512 * 1.5, ("member",): 128}
    assert whole.sent(per_step=False) == {("member", "data"): 7 * 16}
    assert [each.name for each in whole.crossing("member")] == ["everyone", "gather"]
    assert whole.seconds(CHIPS["h100"]) == sum(whole.sent().values()) / 450e9
    with pytest.raises(ValueError, match="bandwidth between chips"):
        whole.seconds(CHIPS["tpu-v4"])


@pytest.mark.parametrize(
    ("text", "groups", "axes"),
    [
        ("{{0,1,2,3},{4,5,6,7}}", ((0, 1, 2, 3), (4, 5, 6, 7)), ("data",)),
        ("{}", (tuple(range(8)),), ("member", "data")),
        ("[2,4]<=[8]", ((0, 1, 2, 3), (4, 5, 6, 7)), ("data",)),
        ("[4,2]<=[2,4]T(1,0)", ((0, 4), (1, 5), (2, 6), (3, 7)), ("member",)),
        ("[4,2]<=[2,2,2]T(0,2,1)", ((0, 2), (1, 3), (4, 6), (5, 7)), ("data",)),
        ("mesh['a'=2,'b'=4] {'b'}", ((0, 1, 2, 3), (4, 5, 6, 7)), ("data",)),
        ("mesh['a'=2,'b'=4] {'a'}", ((0, 4), (1, 5), (2, 6), (3, 7)), ("member",)),
        (
            "mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'b'}",
            ((0, 4), (1, 5), (2, 6), (3, 7)),
            ("member",),
        ),
        ("mesh['a'=8] {'a':(4)2}", ((0, 1), (2, 3), (4, 5), (6, 7)), ("data",)),
        ("mesh['a'=2,'b'=4] {'a','b'}", (tuple(range(8)),), ("member", "data")),
        ("[8,1]<=[8]", tuple((i,) for i in range(8)), ()),
    ],
)
def test_groups_in_every_form_say_which_axes_are_crossed(text, groups, axes):
    line = Instruction(
        "x", "f32[]", "all-reduce", (), f", channel_id=1, replica_groups={text}, a=b"
    )
    assert groups_of(line, 8) == groups
    assert axes_of(groups, MESH) == axes


def test_a_form_that_is_not_known_is_named():
    line = Instruction("x", "f32[]", "all-reduce", (), ", replica_groups=@mesh<a=8>{a}")
    with pytest.raises(ValueError, match="x: replica_groups=@mesh"):
        groups_of(line, 8)
    with pytest.raises(ValueError, match="no ENTRY"):
        parse("not a program")


def test_bytes_follow_from_shapes_and_widths():
    assert type_bytes("f8e4m3fn[10]") == 10 and type_bytes("s4[3]") == 1.5
    assert type_bytes("c128[2]{0:T(256)}") == 32 and type_bytes("(f32[2], (u8[3]))") == 11
    assert type_bytes("bf16[<=8,2]") == 32


def test_the_engine_sends_a_gradient_over_data_and_nothing_over_members(
    task, lower, newborn_rows, batches
):
    """The exact bytes of one step of the real program: every gradient once, over the data axis."""
    import jax

    from jaxhpo.population.collectives import traffic
    from jaxhpo.population.config import Axes
    from tests.population.conftest import make_engine

    engine = make_engine(task, axes=Axes(member=2, data=2))
    rows = newborn_rows()
    population = engine.abstract(engine.place(rows))
    staged = jax.tree.map(lambda x: engine.stage(x), batches)
    program = engine.program("train", population, engine.place(rows), engine.run_seed, staged)
    found = traffic(program, engine.mesh)
    assert found.crossing("member") == ()
    parameters = sum(x.size // engine.size for x in jax.tree.leaves(population.params))
    rows_of_a_shard = engine.size // engine.shards
    sent = found.sent()[("data",)]
    gradients = 4 * parameters * rows_of_a_shard * 2 * (2 - 1) / 2
    assert gradients <= sent <= 1.1 * gradients  # and a few numbers for the curves
