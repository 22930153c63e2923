"""Sixteen adapters of different rank, alpha, rate, dropout and targets over one frozen base."""

from dataclasses import dataclass, field, replace

import jax
import numpy as np
import pytest

from jaxhpo import adapters, nn
from jaxhpo.adapters.config import AdapterConfig
from jaxhpo.config.run import TrainRun
from jaxhpo.errors import UsageError
from jaxhpo.optimizers import OptimizerConfig
from jaxhpo.population import hyperparams
from jaxhpo.population import member as life
from jaxhpo.population.engine import Engine
from jaxhpo.population.mesh import make_mesh
from jaxhpo.population.rows import make_rows
from jaxhpo.population.task import LanguageModel
from jaxhpo.population.tuning import AdapterTuning, FullTuning
from jaxhpo.schedules.config import ScheduleConfig
from tests.compilations import counted
from tests.population.conftest import MODEL, STEPS, assert_equal_bits, born, row

COUNT = 16
SPACE = (
    "schedule.peak_lr", "adapter.rank", "adapter.alpha", "adapter.dropout", "adapter.on_query",
    "adapter.on_value",
)  # fmt: skip
POINTS = [
    {
        "schedule.peak_lr": 0.003 * (1 + i % 5),
        "adapter.rank": 1 + i % 8,
        "adapter.alpha": 2.0 + i,
        "adapter.dropout": 0.05 * (i % 3),
        "adapter.on_query": int(i % 4 != 1),
        "adapter.on_value": int(i % 4 != 2),
    }
    for i in range(COUNT)
]


@dataclass(frozen=True)
class Tuned(TrainRun):
    """A run with the section that fine-tuning adds."""

    adapter: AdapterConfig = field(default_factory=AdapterConfig)


def config_of(kind="lora", **options):
    schedule = ScheduleConfig(peak_lr=0.01, warmup_steps=2)
    adapter = AdapterConfig(kind=kind, max_rank=8, **options)
    return Tuned(model=MODEL, schedule=schedule, adapter=adapter, steps=60)


@pytest.fixture(scope="module")
def base():
    return adapters.store(nn.init(MODEL, jax.random.key(1)))


def make_engine(config, base, members=COUNT, devices=1, chunk=COUNT):
    task = AdapterTuning(LanguageModel(MODEL, config.optimizer, unroll=True), config.adapter)
    mesh = make_mesh(devices)
    return Engine(task, mesh, members, run_seed=7, chunk=chunk, shared=base)


def rows_of(config, points, seeds, searched=SPACE):
    lowered = hyperparams.lower(config, searched, points)
    return make_rows(lowered, seeds, [STEPS] * len(points), newborn=[True] * len(points))


@pytest.fixture(scope="module")
def trained(base, batches):
    """Engine, population and metrics of all sixteen at once; and the base as it was."""
    config, before = config_of(), jax.device_get(base)
    engine = make_engine(config, base)
    rows = rows_of(config, POINTS, range(COUNT))
    population, metrics = engine.train(born(engine, rows), rows, batches)
    return engine, jax.device_get(population), jax.device_get(metrics), before


def test_other_ranks_alphas_and_targets_compile_nothing(trained, batches):
    engine, *_ = trained
    config = config_of()
    rows = rows_of(config, POINTS[::-1], range(40, 40 + COUNT))
    with counted() as events:
        population, _ = engine.train(born(engine, rows), rows, batches)
        jax.block_until_ready(population)
    assert events == []
    assert sorted(name for name, _ in engine.built) == ["assemble", "train"]


def test_the_base_has_the_same_bits_after_training(trained):
    engine, _, metrics, before = trained
    assert (np.asarray(metrics["loss"])[:, -1] != np.asarray(metrics["loss"])[:, 0]).all()
    assert_equal_bits(jax.device_get(engine.shared[0]), before)


def test_each_member_equals_its_solo_run(trained, base, batches):
    _, population, metrics, _ = trained
    config = config_of()
    alone = make_engine(config, base, members=1, chunk=1)
    for place, point in enumerate(POINTS):
        rows = rows_of(config, [point], [place])
        solo, curves = alone.train(born(alone, rows), rows, batches)
        np.testing.assert_allclose(
            curves["loss"][0], metrics["loss"][place], rtol=1e-5, err_msg=f"member {place}"
        )
        jax.tree.map(  # sums in another order: Adam turns 1e-7 in a gradient into 1e-5
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=5e-5),
            row(solo.params, 0),
            row(population.params, place),
        )


def test_each_member_equals_the_program_of_exactly_its_rank_and_targets(trained, base, batches):
    _, _, metrics, _ = trained
    for place in (5, 6):  # one without a query's adapter, with dropout; one without a value's
        point = POINTS[place]
        names = [name for name in ("query", "value") if point[f"adapter.on_{name}"]]
        config = config_of(targets=tuple(f"attention/{name}" for name in names))
        changed = replace(config.adapter, max_rank=None, rank=point["adapter.rank"])
        config = replace(config, adapter=changed)
        own = {k: v for k, v in point.items() if not k.startswith(("adapter.on", "adapter.rank"))}
        engine = make_engine(config, base, members=1, chunk=1)
        rows = rows_of(config, [own], [place], [name for name in SPACE if name in own])
        _, curves = engine.train(born(engine, rows), rows, batches)
        np.testing.assert_allclose(curves["loss"][0], metrics["loss"][place], rtol=1e-5)


def test_at_chunk_one_a_member_equals_its_solo_run_to_the_bit(base, batches):
    config = config_of()
    engine = make_engine(config, base, members=4, devices=2, chunk=1)
    rows = rows_of(config, POINTS[:4], range(4))
    population, _ = engine.train(born(engine, rows), rows, batches)
    alone = make_engine(config, base, members=1, devices=2, chunk=1)
    for place in (0, 3):
        rows = rows_of(config, [POINTS[place]], [place])
        solo, _ = alone.train(born(alone, rows), rows, batches)
        assert_equal_bits(row(solo, 0), row(population, place))


def test_the_program_holds_the_base_once(trained, batches):
    engine, population, *_ = trained
    rows = engine.place(rows_of(config_of(), POINTS, range(COUNT)))
    args = engine.abstract(rows), rows, engine.run_seed, engine.stage(batches)
    found = engine.program("train", *args).memory_analysis()
    size = lambda tree: sum(np.asarray(x).nbytes for x in jax.tree.leaves(tree))
    shared = size(engine.shared)
    given = size(population) + size(jax.device_get(rows)) + size(batches) + 4
    assert found.argument_size_in_bytes == pytest.approx(given + shared, rel=0.02)
    assert found.alias_size_in_bytes == pytest.approx(size(population), rel=0.02)


@pytest.mark.parametrize("kind", ["dora", "adalora", "adamole"])
def test_every_kind_trains_and_says_what_it_does(kind, base, batches):
    options = {"initial_rank": 6, "target_rank": 2, "tfinal": 55} if kind == "adalora" else {}
    config = config_of(kind, **options)
    engine = make_engine(config, base, members=2, chunk=2)
    rows = rows_of(config, [{}, {"schedule.peak_lr": 0.02}], [0, 1], ["schedule.peak_lr"])
    _, metrics = engine.train(born(engine, rows), rows, batches)
    metrics = jax.device_get(metrics)
    assert np.isfinite(metrics["loss"]).all()
    if kind == "adalora":
        ranks = sum(values for name, values in metrics.items() if name.startswith("rank/"))
        # 2 targets x 2 layers, from 6 to 2 within 5 of the 60 steps
        assert ranks[0].tolist() == [16, 11, 9, 8, 8, 8]
    if kind == "adamole":
        used = metrics["experts/attention/query/1"]
        assert ((used >= 1) & (used <= 4)).all()


def test_micro_batches_of_an_adapter_add_up(base, batches):
    config = config_of("adamole")
    rows = rows_of(config, [{}, {}], [0, 1], ["schedule.peak_lr"])
    whole = make_engine(config, base, members=2, chunk=2)
    split = Engine(whole.task, make_mesh(1), 2, run_seed=7, chunk=2, accumulate=2, shared=base)
    (_, a), (_, b) = (e.train(born(e, rows), rows, batches) for e in (whole, split))
    name = "experts/attention/value/0"
    np.testing.assert_allclose(a[name][:, 0], b[name][:, 0], rtol=1e-5)


@pytest.mark.parametrize("rule", ["adam", "sgd", "lion", "muon", "adafactor"])
def test_every_update_rule_takes_an_adapter_s_arrays(rule, base, batches):
    optimizer = OptimizerConfig(kind=rule, clip_role=1.0, clip_value=1.0)
    config = replace(config_of("adalora", initial_rank=8), optimizer=optimizer)
    inner = LanguageModel(MODEL, optimizer, unroll=True, diagnose_every=1)
    task = AdapterTuning(inner, config.adapter, base)
    numbers = jax.tree.map(lambda x: x[0], hyperparams.lower(config, (), [{}]))
    born = jax.eval_shape(lambda: life.newborn(task, numbers, np.uint32(0), np.uint32(0)))
    batch, key = {"tokens": batches["tokens"][0, 0]}, jax.random.key(0)
    step = lambda member: life.train_step(task, member, numbers, batch, key, 1)
    after, metrics = jax.eval_shape(step, born)
    assert after == born  # the state keeps its shapes
    assert {"update_norm/query", "clipped/value", "rank/attention/query/0"} <= metrics.keys()


def test_full_fine_tuning_starts_from_the_given_weights(base, batches, held_out):
    config, params = config_of(), base["params"]
    task = FullTuning(LanguageModel(MODEL, config.optimizer, unroll=True))
    engine = Engine(task, make_mesh(1), 2, chunk=2, shared=params)
    rows = rows_of(replace(config, adapter=AdapterConfig()), [{}, {}], [0, 1], ["schedule.peak_lr"])
    population = born(engine, rows)
    assert_equal_bits(row(population.params, 1), jax.device_get(params))
    population, metrics = engine.train(population, rows, batches)
    assert "clipped/global" in metrics
    assert not np.array_equal(
        population.params["embed"]["embedding"][0], params["embed"]["embedding"]
    )
    expected = jax.jit(nn.loss, static_argnums=0)(
        MODEL, params, {"tokens": batches["tokens"][0, 0]}
    )
    np.testing.assert_allclose(metrics["loss"][0, 0], expected, rtol=1e-5)


def test_a_decay_rule_that_fits_no_array_is_refused():
    inner = LanguageModel(MODEL, OptimizerConfig(decay_rules=("mlp/down=0.5",)))
    with pytest.raises(UsageError, match=r"'mlp/down=0.5' matches no parameter"):
        AdapterTuning(inner, AdapterConfig(kind="lora"))


def test_without_its_base_the_task_says_so():
    task = AdapterTuning(LanguageModel(MODEL, OptimizerConfig()), AdapterConfig(kind="lora"))
    with pytest.raises(ValueError, match="the base is missing"):
        task.whole({}, hyperparams.lower(config_of(), (), [{}]))
