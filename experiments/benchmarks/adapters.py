"""How fast N adapters train over one frozen base, against one after another; and their memory.

    python experiments/benchmarks/adapters.py [--members 1 4 16] [--rounds 5] [--json FILE]

All ways train LoRA adapters of different rank, alpha and rate on the same batches. The baseline is
the program of one adapter, already compiled, called once for each adapter. What is printed are
medians of rounds in which every way has its turn, so that a slow minute falls on all alike.

- one by one: the engine with one adapter on one device with all cores, the faster of layers laid
  out and scanned;
- engine: N adapters in one program, for each way to execute it: `devices` x `chunk`.

The memory is what the compiled training step takes (arguments, outputs and temporaries) and, of a
process of its own that trains, the peak resident size above what it had before there was a model.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from jaxhpo.adapters.config import AdapterConfig
from jaxhpo.config.run import TrainRun
from jaxhpo.nn.config import ModelConfig
from jaxhpo.population.config import ExecutionConfig, prepare_backend, usable_cores
from jaxhpo.schedules.config import ScheduleConfig

MODEL = ModelConfig(
    num_layers=8, d_model=512, num_heads=8, context=32, vocab_size=4096, activation="swiglu"
)
MAX_RANK, STEPS = 16, 2
SPACE = ("schedule.peak_lr", "adapter.rank", "adapter.alpha")


@dataclass(frozen=True)
class Tuned(TrainRun):
    """A run with an adapter."""

    adapter: AdapterConfig = field(
        default_factory=lambda: AdapterConfig(kind="lora", max_rank=MAX_RANK)
    )


@dataclass(frozen=True)
class Way:
    """How N adapters are executed."""

    members: int
    devices: int = 1
    chunk: int = 1
    unroll: bool = False

    def __str__(self) -> str:
        layers = "laid out" if self.unroll else "scanned"
        return f"{self.devices} devices, chunk {self.chunk}, {layers}"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--members", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=80, help="of rounds for a table, about")
    parser.add_argument("--base-dtype", default="float32")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--part", choices=("speed", "memory", "both"), default="both")
    parser.add_argument(
        "--child", type=int, nargs=2, help="members and chunk of a process measured"
    )
    return parser.parse_args()


def main() -> None:
    options = parse()
    prepare_backend(ExecutionConfig(devices=usable_cores()), max(options.members))
    if options.child:
        print(json.dumps(resident(*options.child, options.base_dtype)))
        return
    import jax

    from jaxhpo import nn

    size = nn.count_parameters(MODEL)
    device = jax.devices()[0].device_kind
    print(f"{device}, {usable_cores()} cores, jax {jax.__version__}; base of {size / 1e6:.1f}M "
          f"parameters, {MODEL.context} tokens, LoRA on query and value")  # fmt: skip
    found = {"device": device, "cores": usable_cores(), "jax": jax.__version__, "base": size}
    if options.part != "memory":
        found["speed"] = [row for batch in options.batches for row in speeds(batch, options)]
    if options.part != "speed":
        found["memory"] = memories(options)
    if options.json:
        earlier = json.loads(options.json.read_text()) if options.json.exists() else {}
        options.json.write_text(json.dumps(earlier | found, indent=1) + "\n")


def built(way: Way, batch: int, base_dtype: str = "float32"):
    """The engine of a way, its rows of distinct adapters, and batches [1, S, B, T + 1]."""
    import jax
    import numpy as np

    from jaxhpo import adapters, nn
    from jaxhpo.population import hyperparams
    from jaxhpo.population.engine import Engine
    from jaxhpo.population.mesh import make_mesh
    from jaxhpo.population.rows import make_rows
    from jaxhpo.population.task import LanguageModel
    from jaxhpo.population.tuning import AdapterTuning

    config = Tuned(model=MODEL, schedule=ScheduleConfig(peak_lr=1e-3, warmup_steps=0), steps=1000)
    config = replace(config, data=replace(config.data, batch_size=batch))
    base = jax.jit(lambda: adapters.store(nn.init(MODEL, jax.random.key(1)), base_dtype))()
    task = AdapterTuning(LanguageModel(MODEL, config.optimizer, way.unroll), config.adapter)
    mesh = make_mesh(way.devices)
    engine = Engine(task, mesh, way.members, chunk=way.chunk, shared=base)
    points = [
        {"schedule.peak_lr": 1e-3 * (1 + i), "adapter.rank": 1 + i % MAX_RANK,
         "adapter.alpha": 8.0 + i} for i in range(way.members)
    ]  # fmt: skip
    rows = make_rows(
        hyperparams.lower(config, SPACE, points),
        seeds=range(way.members),
        steps=[STEPS] * way.members,
        newborn=[True] * way.members,
    )
    tokens = np.random.default_rng(0).integers(
        0, MODEL.vocab_size, (1, STEPS, batch, MODEL.context + 1), dtype=np.int32
    )
    return engine, engine.place(rows), engine.stage({"tokens": tokens})


def timed(way: Way, batch: int, base_dtype: str) -> Callable[[], float]:
    """Seconds of one step of all the way's adapters."""
    import jax

    engine, rows, batches = built(way, batch, base_dtype)
    holder = {"population": engine.assemble(engine.empty(rows), rows)}

    def once() -> float:
        start = time.perf_counter()
        holder["population"], metrics = engine.train(holder["population"], rows, batches)
        jax.block_until_ready((holder["population"], metrics))
        return (time.perf_counter() - start) / STEPS

    return once


def speeds(batch: int, options: argparse.Namespace) -> list[dict]:
    """Medians for every way at one batch size, printed as a table."""
    import jax

    cores = min(usable_cores(), jax.device_count())
    ways = [Way(1, unroll=True)]
    for members in options.members:
        ways.append(Way(members, chunk=members))
        if members > 1 and cores > 1:
            ways.append(Way(members, devices=cores, chunk=members // cores))
    largest = max(options.members)
    ways += [Way(largest, chunk=largest, unroll=True), Way(largest, devices=cores, unroll=True)]
    ways += [Way(largest, chunk=4)]
    times: dict[Way, list[float]] = {}
    calls = {}
    for way in dict.fromkeys(ways):
        calls[way] = timed(way, batch, options.base_dtype)
        calls[way]()
        times[way] = []
    until = time.perf_counter() + options.seconds
    for turn in range(options.rounds):
        if turn > 1 and time.perf_counter() > until:
            break
        for way, call in calls.items():
            times[way].append(call())
    medians = {way: statistics.median(found) for way, found in times.items()}
    single = min(value for way, value in medians.items() if way.members == 1)
    print(f"\nbatch {batch}: one adapter's step takes {1e3 * single:.1f} ms")
    columns = f"{'ms each':>9s}{'tokens/s':>10s}{'x one by one':>14s}"
    print(f"{'adapters':>8s}  {'executed on':36s}{columns}")
    rows = []
    for way, seconds in medians.items():
        each = seconds / way.members
        row = {
            "batch": batch, "members": way.members, "devices": way.devices, "chunk": way.chunk,
            "unroll": way.unroll, "ms_each": 1e3 * each, "rounds": len(times[way]),
            "tokens_per_second": batch * MODEL.context / each, "of_one_by_one": single / each,
        }  # fmt: skip
        rows.append(row)
        print(f"{way.members:8d}  {way!s:36s}{1e3 * each:9.1f}{row['tokens_per_second']:10.0f}"
              f"{row['of_one_by_one']:14.2f}", flush=True)  # fmt: skip
    return rows


def compiled_bytes(members: int, chunk: int, base_dtype: str) -> int:
    """Bytes of the compiled training step at batch 1: arguments, outputs and temporaries."""
    engine, rows, batches = built(Way(members, chunk=chunk), 1, base_dtype)
    args = engine.abstract(rows), rows, engine.run_seed, batches
    found = engine.program("train", *args).memory_analysis()
    taken = found.argument_size_in_bytes + found.temp_size_in_bytes
    return taken + found.output_size_in_bytes - found.alias_size_in_bytes


def peak() -> int:
    """Bytes of this process's peak resident size; getrusage would have its parent's too."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) * 1024


def resident(members: int, chunk: int, base_dtype: str) -> int:
    """Bytes by which this process's peak resident size grows while it trains at batch 1."""
    import jax

    jax.block_until_ready(jax.jit(lambda: jax.numpy.zeros(8))())
    before = peak()
    timed(Way(members, chunk=chunk), 1, base_dtype)()
    return peak() - before


def memories(options: argparse.Namespace) -> list[dict]:
    """A population of the largest size against as many runs of one, printed as a table."""
    largest, rows = max(options.members), []
    print(f"\n{'adapters':>8s}{'chunk':>7s}{'compiled MiB':>14s}{'peak MiB':>10s}")
    for members, chunk in ((1, 1), (largest, 1), (largest, largest)):
        command = [sys.executable, __file__, "--child", str(members), str(chunk)]
        command += ["--base-dtype", options.base_dtype]
        found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        row = {"members": members, "chunk": chunk, "peak": int(found),
               "compiled": compiled_bytes(members, chunk, options.base_dtype)}  # fmt: skip
        rows.append(row)
        print(f"{members:8d}{chunk:7d}{row['compiled'] / 2**20:14.1f}{row['peak'] / 2**20:10.1f}")
    for name in ("compiled", "peak"):
        one, _, all_at_once = (row[name] for row in rows)
        print(f"{name}: {largest} runs of one take {largest * one / 2**20:.0f} MiB, "
              f"{largest * one / all_at_once:.1f}x one program")  # fmt: skip
    return rows


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    main()
