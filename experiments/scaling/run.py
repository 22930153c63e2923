"""What a mesh sends between devices in one step, from the compiled program, and what that costs.

Every mesh shape of 8 devices below is compiled for the train program of one model (GPT-2's shape,
124M), on 8 virtual CPU devices; nothing is trained. Bytes come from the compiled text
(jaxhpo.population.collectives), times from data sheets (jaxhpo.population.chips): operations at the
chip's peak in bfloat16, bytes at the bandwidth of one axis, nothing overlapped.

    python experiments/scaling/run.py            # writes result.json; five minutes on two cores
    python experiments/scaling/run.py --tiny     # a small model, for trying it out; writes nothing
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

DEVICES = 8
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + f" --xla_force_host_platform_device_count={DEVICES}"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

MESHES = (
    "member=8",
    "member=4,data=2",
    "member=4,fsdp=2",
    "member=4,tensor=2",
    "data=8",
    "fsdp=8",
    "data=2,fsdp=4",
    "fsdp=4,tensor=2",
    "member=2,data=2,fsdp=2",
    "member=2,fsdp=2,tensor=2",
    "data=2,fsdp=2,tensor=2",
)
CHIPS = ("h100", "tpu-v5e")
BATCH = 32
"""Sequences of 1024 tokens in a member's batch."""


def config_of(tiny: bool) -> Any:
    from jaxhpo.config.run import TrainRun
    from jaxhpo.data.config import DataConfig
    from jaxhpo.nn.config import ModelConfig

    shape = dict(num_layers=12, d_model=768, num_heads=12, context=1024, vocab_size=50257)
    if tiny:
        shape = dict(num_layers=2, d_model=32, num_heads=4, context=32, vocab_size=64)
    model = ModelConfig(**shape, compute_dtype="bfloat16")
    return TrainRun(model=model, data=DataConfig(source="synthetic", batch_size=BATCH))


def measure(config: Any, mesh: str) -> dict[str, Any]:
    """One row of the table: bytes by axis, and seconds on each chip, of one step of one member."""
    import jax
    import numpy as np

    from jaxhpo.population import hyperparams
    from jaxhpo.population.chips import CHIPS as KNOWN
    from jaxhpo.population.collectives import traffic
    from jaxhpo.population.config import parse_mesh
    from jaxhpo.population.engine import Engine
    from jaxhpo.population.mesh import by_batch, make_mesh
    from jaxhpo.population.rows import make_rows
    from jaxhpo.population.task import LanguageModel
    from jaxhpo.population.work import flops_per_token
    from jaxhpo.study.meshes import sent_bytes

    axes = parse_mesh(mesh)
    task = LanguageModel(config.model, config.optimizer, unroll=False, diagnose_every=0)
    engine = Engine(task, make_mesh(axes), 2 * axes.member, chunk=1)
    rows = engine.place(make_rows(hyperparams.lower(config, (), [{}]), seeds=[0], steps=[1]))
    tokens = jax.ShapeDtypeStruct(
        (1, 4, config.data.batch_size, config.model.context + 1),
        np.int32,
        sharding=by_batch(engine.mesh, 2),
    )
    begin = time.perf_counter()
    program = engine.program(
        "train", engine.abstract(rows), rows, engine.run_seed, {"tokens": tokens}
    )
    seconds = time.perf_counter() - begin
    found = traffic(program, engine.mesh)
    held = engine.size // engine.shards
    sent = {"+".join(axis): count / held for axis, count in found.sent().items()}
    operations = config.tokens_per_step * flops_per_token(config) / axes.inner
    kinds: dict[str, int] = {}
    for each in found.collectives:
        if each.per_step and each.axes:
            kinds[each.kind] = kinds.get(each.kind, 0) + each.count // held
    return {
        "mesh": mesh,
        "sent": sent,
        "formula": {name: count for name, count in sent_bytes(config, axes).items() if count},
        "kinds": kinds,
        "crossing_members": len([c for c in found.crossing("member") if c.per_step]),
        "compile_seconds": seconds,
        "chips": {
            name: {
                "compute_seconds": operations / KNOWN[name].peak("bfloat16"),
                "collective_seconds": sum(sent.values()) / (KNOWN[name].link or 0.0),
            }
            for name in CHIPS
        },
    }


def line(row: dict[str, Any]) -> str:
    """A row as Markdown."""
    mib = lambda sent: ", ".join(f"{a} {b / 2**20:,.1f}" for a, b in sent.items()) or "nothing"
    times = (
        f"{1e3 * chip['compute_seconds']:.2f} / {1e3 * chip['collective_seconds']:.2f} "
        f"({chip['collective_seconds'] / chip['compute_seconds']:.2f})"
        for chip in row["chips"].values()
    )
    return f"| {row['mesh']} | {mib(row['sent'])} | {mib(row['formula'])} | {' | '.join(times)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--mesh", nargs="*", default=MESHES)
    asked = parser.parse_args()
    config, rows = config_of(asked.tiny), []
    print("| mesh | MiB sent (compiled) | MiB sent (plan's formula) | " + " | ".join(CHIPS) + " |")
    print("|---|---|---|" + "---|" * len(CHIPS))
    for mesh in asked.mesh:
        rows.append(measure(config, mesh))
        print(line(rows[-1]), flush=True)
    if not asked.tiny and tuple(asked.mesh) == MESHES:
        text = json.dumps({"batch": BATCH, "rows": rows}, indent=1)
        (Path(__file__).parent / "result.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
