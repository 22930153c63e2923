"""The closed formula for memory against what XLA's CPU compiler takes."""

from dataclasses import dataclass, field, replace

import jax
import numpy as np
import pytest

from jaxhpo import adapters, nn
from jaxhpo.adapters.config import AdapterConfig
from jaxhpo.config.run import PbtRun
from jaxhpo.errors import UsageError
from jaxhpo.population import hyperparams
from jaxhpo.population.config import Axes
from jaxhpo.population.engine import Engine
from jaxhpo.population.memory import check_fits, memory_plan
from jaxhpo.population.mesh import make_mesh
from jaxhpo.population.rows import make_rows, padded
from jaxhpo.population.task import LanguageModel
from jaxhpo.population.tuning import AdapterTuning
from jaxhpo.search.config import PbtConfig
from jaxhpo.study.opening import make_engine

STEPS, MEMBERS = 10, 4


def config(chunk: int, **model) -> PbtRun:
    base = PbtRun(pbt=PbtConfig(members=MEMBERS, beside=False))
    return replace(
        base,
        model=replace(base.model, vocab_size=257, **model),
        execution=replace(base.execution, devices=2, chunk=chunk),
    )


@pytest.mark.parametrize(
    ("chunk", "axes"), [(1, Axes(2)), (2, Axes(2)), (1, Axes(fsdp=2, tensor=2))]
)
def test_the_planned_bytes_are_those_of_the_compiled_step(chunk: int, axes: Axes) -> None:
    asked = config(chunk)
    engine = make_engine(asked, make_mesh(axes), MEMBERS)
    lowered = hyperparams.lower(asked, tuple(asked.space), [{}] * MEMBERS)
    rows = padded(make_rows(lowered, range(MEMBERS), [STEPS] * MEMBERS), engine.size)
    rows = engine.place(rows)
    shape = (1, STEPS, asked.data.batch_size, asked.model.context + 1)
    batches = engine.stage({"tokens": np.zeros(shape, np.int32)})
    args = engine.abstract(rows), rows, engine.run_seed, batches
    found = engine.program("train", *args).memory_analysis()
    taken = found.argument_size_in_bytes + found.temp_size_in_bytes
    taken += found.output_size_in_bytes - found.alias_size_in_bytes
    plan = memory_plan(asked, engine.size // engine.shards, engine.chunk, STEPS, 0, axes=axes)
    # the next segment's batches and the held-out ones are in the plan, and no part of this program
    elsewhere = plan.data - jax.tree.leaves(batches)[0].nbytes // axes.batch
    assert plan.total - elsewhere == pytest.approx(taken, rel=0.2)


@pytest.mark.parametrize(
    ("chunk", "share", "option"),
    [
        (8, 0.5, "--execution.chunk [1-7] would fit"),
        (1, 0.5, "members a device would fit"),
        (1, 0.02, "not even one member fits: .*--execution.accumulate 2"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_option_that_would_fit(
    chunk: int, share: float, option: str
) -> None:
    rows = 8 if chunk == 8 else 256
    plan = memory_plan(config(chunk), rows, chunk, segment=STEPS, probe=0)
    check_fits(replace(plan, limit=2 * plan.total), config(chunk), rows, chunk)
    tight = replace(plan, limit=int(share * plan.total))
    with pytest.raises(UsageError, match=option):
        check_fits(tight, config(chunk), rows, chunk)


@dataclass(frozen=True)
class Tuned(PbtRun):
    """A population of adapters."""

    adapter: AdapterConfig = field(default_factory=lambda: AdapterConfig(kind="lora", max_rank=8))


@pytest.mark.parametrize("kind", ["lora", "adalora"])
def test_the_base_of_adapters_is_planned_once(kind: str) -> None:
    asked = config(MEMBERS)
    options = {"initial_rank": 8} if kind == "adalora" else {}
    adapter = AdapterConfig(kind=kind, max_rank=8, **options)
    asked = Tuned(model=asked.model, execution=asked.execution, pbt=asked.pbt, adapter=adapter)
    base = adapters.store(nn.init(asked.model, jax.random.key(0)))
    task = AdapterTuning(LanguageModel(asked.model, asked.optimizer, True), adapter)
    engine = Engine(task, make_mesh(1), MEMBERS, chunk=MEMBERS, shared=base)
    lowered = hyperparams.lower(asked, tuple(asked.space), [{}] * MEMBERS)
    rows = engine.place(make_rows(lowered, range(MEMBERS), [STEPS] * MEMBERS))
    state = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(engine.abstract(rows)))
    shape = (1, STEPS, asked.data.batch_size, asked.model.context + 1)
    batches = engine.stage({"tokens": np.zeros(shape, np.int32)})
    found = engine.program("train", engine.abstract(rows), rows, engine.run_seed, batches)
    found = found.memory_analysis()
    taken = found.argument_size_in_bytes + found.temp_size_in_bytes
    taken += found.output_size_in_bytes - found.alias_size_in_bytes
    plan = memory_plan(asked, MEMBERS, MEMBERS, STEPS, 0)
    assert plan.shared == sum(x.nbytes for x in jax.tree.leaves(base))
    assert plan.state == state
    elsewhere = plan.data - jax.tree.leaves(batches)[0].nbytes
    assert plan.total - elsewhere == pytest.approx(taken, rel=0.2)


def test_a_chunk_has_no_more_lanes_than_members_that_train_at_once() -> None:
    asked = Tuned(model=config(1).model)
    assert make_engine(asked, make_mesh(1), 16).chunk == 16
    assert make_engine(asked, make_mesh(1), 16, rows=3).chunk == 3
    assert make_engine(asked, make_mesh(2), 16, rows=3).chunk == 2
