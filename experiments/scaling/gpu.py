"""One accelerator: MFU of a 124M model, tokens/s of populations, and peak memory against the plan.

    python experiments/scaling/gpu.py              # on a GPU or TPU; writes gpu.json
    python experiments/scaling/gpu.py --tiny       # tiny models on whatever there is, to try it out

Three questions. (1) MFU of one GPT-2-shaped model of 124M parameters in bfloat16, by batch size;
the goal is 50%. (2) Tokens/s of 1 to 64 members of 1M to 300M parameters in one program, over those
of one member alone: how many times as fast as training one after another. (3) The most memory that
the device held, over what `jaxhpo plan` says. Each case is a process of its own, so that its peak
is its own and running out of memory ends no other. Timed are three segments after one that is not,
each fetched to the host; medians. Cases that the plan says do not fit are left out.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

SIZES = (1e6, 3e6, 1e7, 3e7, 1e8, 3e8)
MEMBERS = (1, 2, 4, 8, 16, 32, 64)
BATCHES = (8, 16, 32, 64)
STEPS = 20
"""Of one segment."""


def config_of(case: dict[str, Any]) -> Any:
    """The config of a case: GPT-2's own shape, or the widest of its kind with so many parameters;
    vocabulary and context of the small ones are smaller, so that the blocks are most of them."""
    from jaxhpo.config.run import TrainRun
    from jaxhpo.data.config import DataConfig
    from jaxhpo.nn.config import ModelConfig
    from jaxhpo.study.size import fit

    shape = dict(num_layers=12, d_model=768, num_heads=12, context=1024, vocab_size=50304)
    if case["size"] == "gpt2":
        model = ModelConfig(**shape, compute_dtype="bfloat16")
    else:
        small = dict(shape, vocab_size=256 if case["size"] < 3e7 else 8192, context=256)
        like = ModelConfig(**small, compute_dtype="bfloat16")
        head = 32 if case["size"] < 3e7 else 64
        model = min(fit(case["size"], like, head), key=lambda m: abs(m.d_model / m.num_layers - 64))
    data = DataConfig(source="synthetic", batch_size=case["batch"])
    return TrainRun(model=model, data=data)


def measure(case: dict[str, Any]) -> dict[str, Any]:
    """Runs one case in this process."""
    import jax
    import numpy as np

    from jaxhpo.population import hyperparams, memory
    from jaxhpo.population.chips import peak_of
    from jaxhpo.population.mesh import make_mesh
    from jaxhpo.population.rows import make_rows
    from jaxhpo.population.usage import device_peak_bytes
    from jaxhpo.population.work import flops_per_token
    from jaxhpo.study.opening import make_engine

    config, members, steps = config_of(case), case["members"], case["steps"]
    engine = make_engine(config, make_mesh(1), members)
    plan = memory.memory_plan(config, engine.size, engine.chunk, steps, 0)
    about = {**case, "parameters": memory.count_trained(config), "chunk": engine.chunk}
    if not plan.fits:
        return {**about, "skipped": f"the plan needs {plan.total / 2**30:.1f} GiB"}
    given = hyperparams.lower(config, (), [{}] * members)
    first = make_rows(
        given, seeds=range(members), steps=[steps] * members, newborn=[True] * members
    )
    population = engine.assemble(engine.empty(first), first)
    rows = engine.place(make_rows(given, seeds=range(members), steps=[steps] * members))
    shape = (1, steps, case["batch"], config.model.context + 1)
    tokens = np.random.default_rng(0).integers(0, config.model.vocab_size, shape, np.int32)
    batches = engine.stage({"tokens": tokens})
    seconds = []
    for _ in range(4):
        begin = time.perf_counter()
        population, metrics = engine.train(population, rows, batches)
        losses = jax.device_get(metrics)["loss"][:members]
        seconds.append(time.perf_counter() - begin)
    if not np.isfinite(losses).all():
        raise RuntimeError("a member has diverged: what was timed is no training")
    speed = members * steps * config.tokens_per_step / statistics.median(seconds[1:])
    device = jax.devices()[0]
    peak = peak_of(device.device_kind, [config.model.compute_dtype])
    held = device_peak_bytes()
    return {
        **about,
        "device": device.device_kind,
        "tokens_per_second": speed,
        "segment_seconds": seconds[1:],
        "mfu": None if peak is None else speed * flops_per_token(config) / peak.flops,
        "peak_flops": None if peak is None else peak.flops,
        "held_bytes": held,
        "planned_bytes": plan.total,
        "held_over_planned": None if held is None else held / plan.total,
    }


def cases(tiny: bool) -> list[dict[str, Any]]:
    """All cases; of the tiny ones two a question."""
    if tiny:
        make = lambda members: {"size": 1e6, "members": members, "batch": 2, "steps": 2}
        return [make(1), make(2)]
    of_one = [{"size": "gpt2", "members": 1, "batch": b, "steps": STEPS} for b in BATCHES]
    several = [
        {"size": size, "members": members, "batch": 16, "steps": STEPS}
        for size in SIZES
        for members in MEMBERS
    ]
    return of_one + several


def separately(case: dict[str, Any]) -> dict[str, Any]:
    """A case in a process of its own."""
    words = [sys.executable, __file__, "--case", json.dumps(case)]
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ)
    if done.returncode:
        last = next(iter(reversed(done.stderr.strip().splitlines())), "")
        return {**case, "failed": last[:300]}
    return json.loads(done.stdout.splitlines()[-1])


def line(row: dict[str, Any], alone: dict[Any, float]) -> str:
    """A row as Markdown; `alone` has the tokens/s of one member by size."""
    if "tokens_per_second" not in row:
        said = row.get("skipped") or row.get("failed")
        return f"| {row['size']} | {row['members']} | {row['batch']} | {said} | | | |"
    alone.setdefault((row["size"], row["batch"]), row["tokens_per_second"])
    times = row["tokens_per_second"] / alone[row["size"], row["batch"]]
    mfu = "?" if row["mfu"] is None else f"{row['mfu']:.1%}"
    over = "?" if row["held_over_planned"] is None else f"{row['held_over_planned']:.2f}"
    return (
        f"| {row['parameters']:,} | {row['members']} | {row['batch']} | "
        f"{row['tokens_per_second']:,.0f} | {times:.2f} | {mfu} | {over} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--case", type=json.loads)
    asked = parser.parse_args()
    if asked.case is not None:
        print(json.dumps(measure(asked.case)))
        return
    print("| parameters | members | batch | tokens/s | times alone | MFU | memory over plan |")
    print("|---|---|---|---|---|---|---|")
    rows, alone = [], {}
    for case in cases(asked.tiny):
        rows.append(separately(case))
        print(line(rows[-1], alone), flush=True)
    if not asked.tiny:
        (Path(__file__).parent / "gpu.json").write_text(json.dumps(rows, indent=1) + "\n")
    elif any("failed" in row for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
