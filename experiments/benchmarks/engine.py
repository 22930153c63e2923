"""How fast the engine trains N members in one program, against training them one after another.

    python experiments/benchmarks/engine.py [--members 1 2 4 8 16] [--seconds 60] [--json FILE]

All ways train the same model on the same batches, in one process; what is printed are medians of
rounds in which every way has its turn, so that a slow minute of the machine falls on all alike.

- by hand: a jitted step as one would write it with plain optax, called once a step for one model
  on all cores; layers unrolled and rolled;
- one by one: the engine's own step as a program of one member, called once a step;
- engine: N members in one program of many steps, for chunks of 1, 2, 4 ... N members.

The engine has one virtual device for each core of a CPU and lays the layers out; on a GPU it has
the GPU, and the layers are scanned in all ways. Beside the speeds: how many programs JAX compiled,
and the closed formula for memory against what the compiler (CPU) or the allocator (GPU) says.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from jaxhpo.config.run import PbtRun
from jaxhpo.population.config import ExecutionConfig, prepare_backend, usable_cores

STEPS = 25
"""Steps in one call of the engine."""


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--members", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--seconds", type=float, default=60, help="spent on timing each table")
    parser.add_argument("--d-model", type=int, default=64)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    return parser.parse_args()


def main() -> None:
    options = parse()
    prepare_backend(ExecutionConfig(devices=usable_cores()), max(options.members))
    import jax

    jax.config.update("jax_enable_compilation_cache", False)
    compiled = count_compilations()
    config, data = job(options)
    device = jax.devices()[0]
    print(f"{jax.device_count()} x {device.device_kind}, {usable_cores()} cores, jax "
          f"{jax.__version__}; {config.model.num_layers} layers of {config.model.d_model}, "
          f"batch {config.data.batch_size} x {config.model.context}")  # fmt: skip
    found = {"device": device.device_kind, "jax": jax.__version__, "cores": usable_cores()}
    found["speed"] = speeds(config, data, options)
    found["memory"] = memories(config, data, options.members)
    found["compilations"] = len(compiled)
    print(f"\n{len(compiled)} programs compiled, none of them by a timed call")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


def job(options: argparse.Namespace) -> tuple[PbtRun, dict]:
    """The default job's config with its vocabulary, and training batches [S, B, T + 1]."""
    from jaxhpo.data.corpus import open_corpus
    from jaxhpo.study.setup import with_vocabulary

    base = PbtRun()
    model = replace(base.model, d_model=options.d_model, num_layers=options.layers)
    config = replace(base, model=model)
    corpus = open_corpus(config.data, config.model.context, config.seed)
    return with_vocabulary(config, corpus), corpus.train.batch_at(0, STEPS)


def count_compilations() -> list[str]:
    """A list that grows by one with every program that JAX compiles from now on."""
    import jax

    events: list[str] = []

    def listen(name: str, *_: object, **__: object) -> None:
        if "backend_compile" in name:
            events.append(name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    return events


# the ways


def by_hand(config: PbtRun, data: dict, unroll: bool) -> Callable[[], float]:
    """Seconds for one step of one model, as written with plain optax: calls of a jitted step."""
    import jax
    import optax

    from jaxhpo import nn
    from jaxhpo.optimizers import decay_shares
    from jaxhpo.optimizers.masks import renamed

    tuned = config.optimizer
    shares = decay_shares(tuned, nn.tensors(config.model))
    decayed = lambda params: renamed({k: bool(v) for k, v in shares.items()}, params)
    optimizer = optax.chain(
        optax.clip_by_global_norm(tuned.clip_norm),
        optax.adamw(
            optax.warmup_constant_schedule(0.0, config.schedule.peak_lr, 50),
            b1=tuned.beta1, b2=tuned.beta2, eps=tuned.eps,
            weight_decay=tuned.coefficient, mask=decayed,
        ),
    )  # fmt: skip

    def step(params, moments, tokens):
        loss = lambda params: nn.loss(config.model, params, {"tokens": tokens}, unroll=unroll)
        value, grads = jax.value_and_grad(loss)(params)
        updates, moments = optimizer.update(grads, moments, params)
        return optax.apply_updates(params, updates), moments, value

    params = jax.jit(lambda: nn.init(config.model, jax.random.key(0)))()
    state = params, jax.jit(optimizer.init)(params)
    program = jax.jit(step, donate_argnums=(0, 1))
    tokens = [jax.device_put(row) for row in data["tokens"]]
    holder = {"state": state}

    def timed() -> float:
        start = time.perf_counter()
        for row in tokens:
            *holder["state"], value = program(*holder["state"], row)
        jax.block_until_ready((holder["state"], value))
        return (time.perf_counter() - start) / len(tokens)

    return timed


def engine_of(config: PbtRun, members: int, chunk: int, devices: int | None = None):
    """The engine, its rows of distinct members, and its population, newborn."""
    from jaxhpo.population import hyperparams
    from jaxhpo.population.mesh import make_mesh
    from jaxhpo.population.rows import make_rows
    from jaxhpo.study.devices import axes_for
    from jaxhpo.study.opening import make_engine

    execution = replace(config.execution, chunk=chunk, devices=devices)
    pbt = replace(config.pbt, members=members, beside=False)
    config = replace(config, pbt=pbt, execution=execution)
    engine = make_engine(config, make_mesh(axes_for(config, members)), members)
    points = [{"schedule.peak_lr": 1e-3 * (1 + i / members)} for i in range(members)]
    rows = engine.place(
        make_rows(
            hyperparams.lower(config, tuple(config.space), points),
            seeds=range(members),
            steps=[STEPS] * members,
            newborn=[True] * members,
        )
    )
    return engine, rows, engine.assemble(engine.empty(rows), rows)


def together(config: PbtRun, data: dict, members: int, chunk: int) -> Callable[[], float]:
    """Seconds for one step of one member, `members` of them in one program of STEPS steps."""
    import jax

    engine, rows, population = engine_of(config, members, chunk)
    batches = engine.stage({"tokens": data["tokens"][None]})
    holder = {"population": population}

    def timed() -> float:
        start = time.perf_counter()
        holder["population"], metrics = engine.train(holder["population"], rows, batches)
        jax.block_until_ready((holder["population"], metrics))
        return (time.perf_counter() - start) / (members * STEPS)

    return timed


def one_by_one(config: PbtRun, data: dict) -> Callable[[], float]:
    """Seconds for one step of one member, each step a call of the engine's step for one member."""
    import jax

    from jaxhpo.population import hyperparams
    from jaxhpo.population import member as life
    from jaxhpo.population.memory import unrolled
    from jaxhpo.population.task import LanguageModel

    task = LanguageModel(config.model, config.optimizer, unrolled(config))
    row = jax.tree.map(lambda x: x[0], hyperparams.lower(config, tuple(config.space), [{}]))
    seed = jax.numpy.uint32(0)

    def step(member, row, tokens):
        key = life.stream(seed, seed, member.step)
        return life.train_step(task, member, row, {"tokens": tokens}, key, 1)

    program = jax.jit(step, donate_argnums=0)
    holder = {"member": jax.jit(lambda row: life.newborn(task, row, seed, seed))(row)}
    tokens = [jax.device_put(row) for row in data["tokens"]]

    def timed() -> float:
        start = time.perf_counter()
        for each in tokens:
            holder["member"], metrics = program(holder["member"], row, each)
        jax.block_until_ready((holder["member"], metrics))
        return (time.perf_counter() - start) / len(tokens)

    return timed


# the tables


def speeds(config: PbtRun, data: dict, options: argparse.Namespace) -> list[dict]:
    """Medians of milliseconds per member and step for every way, printed as a table."""
    ways: dict[tuple[str, int, int], Callable[[], float]] = {
        ("by hand, unrolled", 1, 1): by_hand(config, data, True),
        ("by hand, rolled", 1, 1): by_hand(config, data, False),
        ("one by one", 1, 1): one_by_one(config, data),
    }
    for members in options.members:
        chunks = sorted({2**i for i in range(members.bit_length())} | {members})
        for chunk in [c for c in chunks if c <= members]:
            ways["engine", members, chunk] = together(config, data, members, chunk)
    for timed in ways.values():
        timed()
    times: dict[tuple[str, int, int], list[float]] = {way: [] for way in ways}
    until = time.perf_counter() + options.seconds
    while time.perf_counter() < until or len(times["one by one", 1, 1]) < 3:
        for way, timed in ways.items():
            times[way].append(timed())
    medians = {way: statistics.median(found) for way, found in times.items()}
    singles = {way: value for way, value in medians.items() if way[0] != "engine"}
    fastest, rolled = min(singles.values()), medians["by hand, rolled", 1, 1]
    tokens = config.data.batch_size * config.model.context
    print(f"\n{'':20s}{'members':>8s}{'chunk':>7s}{'ms':>8s}{'tokens/s':>11s}"
          f"{'x fastest single':>18s}{'x rolled':>10s}")  # fmt: skip
    rows = []
    for (name, members, chunk), seconds in medians.items():
        row = {
            "way": name, "members": members, "chunk": chunk, "ms": 1e3 * seconds,
            "tokens_per_second": tokens / seconds, "of_fastest_single": fastest / seconds,
            "of_rolled": rolled / seconds, "rounds": len(times[name, members, chunk]),
        }  # fmt: skip
        rows.append(row)
        print(f"{name:20s}{members:8d}{chunk:7d}{row['ms']:8.2f}{tokens / seconds:11,.0f}"
              f"{row['of_fastest_single']:18.2f}{row['of_rolled']:10.2f}", flush=True)  # fmt: skip
    return rows


def memories(config: PbtRun, data: dict, members: list[int]) -> list[dict]:
    """The plan's bytes a device against the compiler's or, on a GPU, the allocator's peak."""
    import jax

    from jaxhpo.population.memory import memory_plan

    print(f"\n{'members':>8s}{'chunk':>7s}{'planned MiB':>13s}{'measured MiB':>14s}{'ratio':>7s}")
    found = []
    for count in members:
        for chunk in sorted({1, count}):
            engine, rows, population = engine_of(config, count, chunk)
            plan = memory_plan(config, engine.size // engine.shards, engine.chunk, STEPS, 0)
            batches = engine.stage({"tokens": data["tokens"][None]})
            args = population, rows, engine.run_seed, batches
            analysis = engine.program("train", *args).memory_analysis()
            # the host stages the next segment's batches meanwhile, and keeps the held-out ones:
            # both are in the plan, and no argument of this program
            staged = plan.data - sum(x.nbytes // engine.mesh.shape["data"] for x in (
                batches["tokens"],)) - 3 * 4 * (engine.size // engine.shards) * STEPS  # fmt: skip
            measured = analysis.argument_size_in_bytes + analysis.temp_size_in_bytes + staged
            measured += analysis.output_size_in_bytes - analysis.alias_size_in_bytes
            stats = jax.devices()[0].memory_stats()
            if stats and "peak_bytes_in_use" in stats:
                engine.train(population, rows, batches)
                measured = jax.devices()[0].memory_stats()["peak_bytes_in_use"]
            row = {"members": count, "chunk": chunk, "planned": plan.total, "measured": measured}
            found.append(row)
            print(f"{count:8d}{chunk:7d}{plan.total / 2**20:13.2f}{measured / 2**20:14.2f}"
                  f"{plan.total / measured:7.2f}", flush=True)  # fmt: skip
    return found


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    main()
