"""Members that several devices share: the same numbers, split as the rules say."""

import math
from dataclasses import dataclass, field, replace

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxhpo import adapters, nn
from jaxhpo.adapters.config import AdapterConfig
from jaxhpo.config.run import TrainRun
from jaxhpo.errors import UsageError
from jaxhpo.nn.constraints import constraining
from jaxhpo.optimizers.config import OptimizerConfig
from jaxhpo.population import hyperparams
from jaxhpo.population import member as life
from jaxhpo.population.collectives import traffic
from jaxhpo.population.config import Axes, ExecutionConfig, parse_mesh
from jaxhpo.population.memory import member_bytes
from jaxhpo.population.mesh import make_mesh
from jaxhpo.population.placing import Placement
from jaxhpo.population.sharding import (
    check_function,
    check_mesh,
    held_shapes,
    parts,
    rule_of,
    spec_of,
)
from jaxhpo.population.task import LanguageModel
from jaxhpo.study.meshes import sent_bytes
from tests.population import test_adapters as tuning
from tests.population.conftest import BATCH, MEMBERS, MODEL, STEPS, born, make_engine

SHAPES = {  # mesh -> chunk
    "member=2,fsdp=2,tensor=2": 1,
    "data=2,fsdp=2,tensor=2": 1,
    "member=2,data=2,tensor=2": 2,
}
ROUNDED = 2e-5
"""Sums over devices come in another order: relative to the largest entry of an array."""


@pytest.fixture(scope="module")
def newborns(engine, newborn_rows):
    return jax.device_get(born(engine, newborn_rows()))


def trained(engine, newborns, rows, batches):
    """The population and its metrics after `rows.steps` steps from the newborns."""
    places = jax.tree.map(lambda x: x.sharding, engine.abstract(rows))
    return engine.train(jax.device_put(newborns, places), rows, batches)


@pytest.fixture(scope="module", params=SHAPES)
def sharing(request, task):
    return make_engine(task, axes=parse_mesh(request.param), chunk=SHAPES[request.param])


def assert_close(found, expected):
    def close(a, b):
        scale = float(np.nanmax(np.abs(b), initial=0))
        np.testing.assert_allclose(a, b, rtol=ROUNDED, atol=ROUNDED * scale)

    jax.tree.map(close, jax.device_get(found), jax.device_get(expected))


@pytest.mark.parametrize("steps", [1, STEPS])
def test_losses_gradients_and_moments_are_those_of_one_device(
    engine, sharing, newborns, newborn_rows, batches, steps
):
    rows = newborn_rows(steps=[steps] * MEMBERS)
    population, metrics = trained(sharing, newborns, rows, batches)
    alone, expected = trained(engine, newborns, rows, batches)
    assert_close(metrics, expected)
    # after one step the first moments are the clipped gradients, times 1 - beta
    assert_close(population.moments, alone.moments)


def test_every_array_lies_as_the_rules_say_and_as_the_memory_plan_counts(
    sharing, newborns, newborn_rows, batches, config
):
    axes = sharing.placement.axes
    population, _ = trained(sharing, newborns, newborn_rows(), batches)
    fsdp, tensor = (axis if getattr(axes, axis) > 1 else None for axis in ("fsdp", "tensor"))
    table = ("tensor", "fsdp") if fsdp and tensor else fsdp or tensor
    expected = {
        "embed": P("member", table, None),
        "attention/query/kernel": P("member", None, fsdp, tensor),
        "attention/out/kernel": P("member", None, tensor, fsdp),
        "mlp/down/kernel": P("member", None, tensor, fsdp),
        "norm/scale": P("member"),
        "count": P("member"),
    }
    seen = set()
    for path, leaf in jax.tree_util.tree_leaves_with_path(population):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        for part, spec in expected.items():
            if part in name:
                seen.add((name.split("/")[0], part))
                place = NamedSharding(sharing.mesh, spec)
                assert leaf.sharding.is_equivalent_to(place, leaf.ndim), name
    assert len(seen) == 2 * len(expected) - 1, "all of params and moments, and one counter"
    held = [x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(population)]
    rows = sharing.size // sharing.shards
    assert sum(held) == rows * member_bytes(MODEL, config.optimizer, axes=axes)


def test_no_collective_of_a_step_crosses_members_and_an_exploit_does(
    sharing, newborns, newborn_rows, batches
):
    rows = sharing.place(newborn_rows())
    args = sharing.abstract(rows), rows, sharing.run_seed
    found = traffic(sharing.program("train", *args, sharing.stage(batches)), sharing.mesh)
    crossed = {axis for each in found.collectives for axis in each.axes}
    axes = sharing.placement.axes
    shared = {axis for axis in ("data", "fsdp", "tensor") if getattr(axes, axis) > 1}
    assert crossed == shared, "that the axes which share a member are crossed shows that all count"
    assert not found.crossing("member")


def test_bytes_sent_are_those_that_meshes_are_ranked_by(
    sharing, newborns, newborn_rows, batches, config
):
    """A CPU's program sends more than the closed form, by about a third: where an accelerator
    scatters a sum it sums on all devices, and at this size what is small counts."""
    rows = sharing.place(newborn_rows())
    args = sharing.abstract(rows), rows, sharing.run_seed, sharing.stage(batches)
    measured: dict[str, float] = {}
    for axes, sent in traffic(sharing.program("train", *args), sharing.mesh).sent().items():
        axis = axes[0] if axes[0] == "data" else axes[-1]
        measured[axis] = measured.get(axis, 0.0) + sent / (sharing.size // sharing.shards)
    tiny = replace(config, data=replace(config.data, batch_size=BATCH))
    predicted = sent_bytes(tiny, sharing.placement.axes)
    assert {axis for axis, sent in predicted.items() if sent} == set(measured)
    for axis, sent in measured.items():
        assert 0.6 * sent < predicted[axis] < sent, (axis, sent, predicted[axis])


def test_the_search_for_crossings_finds_the_one_of_an_exploit(task, newborn_rows, newborns):
    engine = make_engine(task, axes=parse_mesh("member=2,fsdp=2,tensor=2"))
    rows = newborn_rows(parents=[1, 0, 3, 0], newborn=[False] * MEMBERS)
    population = jax.device_put(newborns, jax.tree.map(lambda x: x.sharding, engine.abstract(rows)))
    rows = engine.place(rows)
    found = traffic(engine.program("assemble", population, rows, engine.run_seed), engine.mesh)
    assert found.crossing("member")
    assert {each.axes for each in found.crossing("member")} == {("member",)}
    copied = engine.assemble(population, rows)
    jax.tree.map(
        lambda new, old: np.testing.assert_array_equal(new, old[np.array([1, 0, 3, 0])]),
        jax.device_get(copied),
        newborns,
    )


def test_adapters_over_a_base_that_is_split_train_as_over_one_that_is_whole(batches):
    """Over int8 in a chunk of two: the base is unbatched, and its columns have scales."""
    config = tuning.config_of("lora", base_dtype="int8", targets=("attention/out", "mlp/up"))
    base = adapters.store(nn.init(MODEL, jax.random.key(1)), "int8")
    rows = tuning.rows_of(config, tuning.POINTS[:2], range(2), searched=("adapter.rank",))
    alone = tuning.make_engine(config, base, members=2, chunk=2)
    population = born(alone, rows)
    newborns = jax.device_get(population)
    _, expected = alone.train(population, rows, batches)
    shared = tuning.make_engine(config, base, 2, Axes(fsdp=2, tensor=2), chunk=2)
    _, metrics = trained(shared, newborns, rows, batches)
    assert_close(metrics["loss"], expected["loss"])
    (base,) = shared.shared
    kernel = base["params"]["blocks"]["attention"]["out"]["kernel"]
    assert kernel.sharding.spec == P(None, "tensor", "fsdp")
    assert base["scales"]["mlp/up"].sharding.spec == P(None, "tensor")
    held = sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(base))
    assert held < 0.45 * sum(x.nbytes for x in jax.tree.leaves(base))


@dataclass(frozen=True)
class Watched(LanguageModel):
    """Keeps the gradients of the step that is traced."""

    seen: list = field(default_factory=list)

    def measure(self, hyperparams, before, grads, updates, moments):
        self.seen.append(grads)
        return {}


def test_gradients_are_split_like_their_parameters(config, newborns, newborn_rows, batches):
    watched, placement = Watched(MODEL, config.optimizer), Placement(make_mesh(Axes(1, 1, 2, 2)))
    row = lambda tree: jax.tree.map(lambda x: x[0], tree)

    def slopes(member, hyperparams, batch):
        life.train_step(watched, member, hyperparams, batch, jax.random.key(0), 1)
        return watched.seen[-1]

    whole = P()
    mapped = jax.shard_map(
        slopes,
        mesh=placement.mesh,
        in_specs=(whole, whole, whole),
        out_specs=whole,
        axis_names={"member"},
        check_vma=False,
    )
    batch = {"tokens": batches["tokens"][0, 0]}
    with constraining(placement.constrain):
        found = jax.jit(mapped)(row(newborns), row(newborn_rows().hyperparams), batch)
    for (path, x), place in zip(
        jax.tree_util.tree_leaves_with_path(found),
        jax.tree.leaves(placement.shared(found)),
        strict=True,
    ):
        assert x.sharding.is_equivalent_to(place, x.ndim), (path, x.sharding)
    assert found["blocks"]["mlp"]["up"]["kernel"].sharding.spec == P(None, "fsdp", "tensor")


@pytest.mark.parametrize("kind", ["muon", "adafactor", "lion"])
def test_what_an_optimizer_keeps_is_split_like_the_parameter_it_is_of(kind):
    model = replace(MODEL, d_model=128, num_heads=2)
    rule = OptimizerConfig(kind=kind)
    task, axes = LanguageModel(model, rule), Axes(fsdp=2, tensor=2)
    one = abstract_member(task, model)
    specs = Placement(make_mesh(axes)).member(one)
    named = jax.tree_util.tree_leaves_with_path
    for (path, x), (_, spec) in zip(named(one.moments), named(specs.moments), strict=True):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        is_moment = "mlp/up/kernel" in name and x.ndim == 3 and x.shape[-1] > 1
        assert spec == (P(None, "fsdp", "tensor") if is_moment else spec)
        assert x.ndim > 1 or not any(spec), "counters and factored moments are whole"
    size = lambda x, spec: x.dtype.itemsize * held(x.shape, spec, axes)
    total = sum(jax.tree.leaves(jax.tree.map(size, one, specs)))
    assert total == member_bytes(model, rule, axes=axes)


def abstract_member(task, model):
    """Shapes of one member."""
    numbers = hyperparams.lower(TrainRun(model=model, optimizer=task.update_rule), (), [{}])
    row = jax.tree.map(lambda x: x[0], numbers)
    return jax.eval_shape(lambda row: life.newborn(task, row, np.uint32(0), np.uint32(0)), row)


def held(shape, spec, axes):
    """Entries of an array on one device."""
    whole = (*spec, *[None] * (len(shape) - len(spec)))
    return math.prod(side // parts(entry, axes) for side, entry in zip(shape, whole, strict=True))


def test_every_array_of_model_base_head_and_adapters_has_one_rule_or_is_refused():
    shapes = dict(nn.tensors(MODEL))
    for more in ({"activation": "swiglu", "tie_embeddings": False}, {"qk_norm": True}, BERT):
        shapes |= nn.tensors(replace(MODEL, **more))
    for kind in ("lora", "dora", "adalora", "adamole"):
        config = AdapterConfig(kind=kind, targets=("attention", "mlp"))
        shapes |= adapters.tensors(config, MODEL)
    shapes |= nn.head_tensors(MODEL, 3)
    for name in shapes:
        rule_of(name)
    with pytest.raises(UsageError, match="0 rules say how blocks/gru/kernel is split"):
        rule_of("blocks/gru/kernel")


BERT = {
    "norm": "layer",
    "norm_position": "post",
    "bias": True,
    "position": "learned",
    "token_types": 2,
    "readout_transform": True,
    "attention": "bidirectional",
}


def test_a_side_that_an_axis_does_not_divide_stays_whole():
    axes = Axes(fsdp=2, tensor=2)
    assert spec_of("embed/embedding", (257, 16), axes) == (None, "fsdp")
    assert spec_of("embed/embedding", (258, 16), axes) == ("tensor", "fsdp")
    assert spec_of("embed/embedding", (260, 16), axes) == (("tensor", "fsdp"), None)
    assert spec_of("embed/embedding", (257, 17), axes) == (None, None)
    shapes = {"blocks/mlp/up/kernel": (2, 17, 64), "final_norm/scale": (17,)}
    assert held_shapes(shapes, axes) == {
        "blocks/mlp/up/kernel": (2, 17, 32),
        "final_norm/scale": (17,),
    }


@pytest.mark.parametrize(
    ("refused", "said"),
    [
        (lambda: parse_mesh("member=2,model=4"), "'model=4' is no axis; allowed: member=N, data=N"),
        (lambda: parse_mesh("member=0"), "'member=0' is no axis"),
        (lambda: parse_mesh("data=2,data=4"), "names data twice"),
        (lambda: ExecutionConfig(mesh="member=4", devices=8), "devices=8 and execution.mesh"),
        (lambda: make_mesh(Axes(4, 4)), "member=4,data=4 takes 16 devices; allowed: 1 to 8"),
        (lambda: make_mesh(9), "execution.devices=9; allowed: 1 to 8"),
        (lambda: check_mesh(MODEL, BATCH, 1, Axes(data=2, fsdp=4)), "batch_size=4 is not a mul"),
        (lambda: check_mesh(MODEL, BATCH, 1, Axes(tensor=4)), "tensor=4 does not divide model.num"),
        (lambda: check_function(Axes(fsdp=2)), "execution.mesh=fsdp=2: nothing says how a"),
    ],
)
def test_a_mesh_that_can_not_be_is_refused_in_one_line(refused, said):
    with pytest.raises(UsageError, match=said) as error:
        refused()
    assert "\n" not in str(error.value)
