"""The whole job against Ray Tune with PyTorch: 8 members, 600 steps, exploit every 50.

    python experiments/benchmarks/whole_job.py [--rounds 3] [--peer-rounds 1] [--json FILE]

Both sides get the same tokens, training windows, held-out windows, initial hyperparameters, model
and fitness (raw loss). Ours is `jaxhpo pbt` in a process of its own from its start to its end:
interpreter, imports, compilation with an empty cache, training, the report page. Theirs is timed
from before `ray.init` to the results, without its imports. `ray_peer.py` is the other side, and
README.md says how it is set up.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from inputs import named, peer_arguments, points_of

from jaxhpo.config import to_toml
from jaxhpo.config.run import PbtRun
from jaxhpo.record.history import history
from jaxhpo.schedules.config import ScheduleConfig
from jaxhpo.search.config import PbtConfig

PEER = Path(__file__).with_name("ray_peer.py")
LR, DECAY = (1e-4, 1e-1), (1e-3, 1.0)
SPANS = ["--lr-range", *map(str, LR), "--decay-range", *map(str, DECAY)]


def config(out: str | None = None) -> PbtRun:
    """The default job with the peer's fitness, schedule and space."""
    return PbtRun(
        out=out,
        schedule=ScheduleConfig(kind="constant"),
        pbt=PbtConfig(fitness="loss", beside=False),
        space={
            "schedule.peak_lr": f"log({LR[0]}, {LR[1]})",
            "optimizer.weight_decay": f"log({DECAY[0]}, {DECAY[1]})",
        },
    )


def ours(place: Path, number: int) -> dict:
    """One run of `jaxhpo pbt` with nothing compiled before it."""
    run, file = place / f"run-{number}", place / f"config-{number}.toml"
    file.write_text(to_toml(config(str(run))))
    environment = {**os.environ, "XDG_CACHE_HOME": str(place / f"cache-{number}")}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    tokens = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxhpo"
    command = [sys.executable, "-m", "jaxhpo", "pbt", "--config", str(file)]
    start = time.perf_counter()
    subprocess.run(
        [*command, "--data.cache", str(tokens)], check=True, env=environment, capture_output=True
    )
    seconds = time.perf_counter() - start
    past = history(run)
    first = past.reports[0]["results"]
    return {
        "wall_seconds": seconds,
        "segments_seconds": past.finish["seconds"],
        "compile_seconds": {event["program"]: event["seconds"] for event in past.compiles},
        "exploits": len(past.exploits()),
        "first_losses": [result["loss"] for result in first],
        "final_losses": sorted(result["loss"] for result in past.reports[-1]["results"]),
    }


def theirs(arguments: list[str], *more: str) -> dict:
    """One run of the peer; its imports are not in its own figure."""
    start = time.perf_counter()
    found = subprocess.run(
        [sys.executable, str(PEER), *arguments, *more], check=True, capture_output=True, text=True
    )
    result = json.loads(found.stdout.splitlines()[-1])
    return {**result, "process_seconds": time.perf_counter() - start}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="runs of ours; the median counts")
    parser.add_argument("--peer-rounds", type=int, default=1, help="runs of Ray Tune")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        job = config()
        arguments = [*peer_arguments(place, job, named(points_of(job))), *SPANS]
        mine = [ours(place, i) for i in range(options.rounds)]
        for run in mine:
            print(f"jaxhpo: {run['wall_seconds']:.1f} s", flush=True)
        loop = theirs(arguments, "--loop")
        print(f"by hand, PyTorch: {loop['wall_seconds']:.1f} s", flush=True)
        peer = [theirs(arguments) for _ in range(options.peer_rounds)]
        for run in peer:
            share = f"{run['share_training']:.0%} of the cores' time in training"
            print(f"Ray Tune: {run['wall_seconds']:.1f} s, {share}", flush=True)
    print(table(mine, peer, loop))
    if options.json:
        found = {"jaxhpo": mine, "ray": peer, "loop": loop}
        options.json.write_text(json.dumps(found, indent=1) + "\n")


def table(mine: list[dict], peer: list[dict], loop: dict) -> str:
    median = lambda runs, name: statistics.median(run[name] for run in runs)
    us, ray = median(mine, "wall_seconds"), median(peer, "wall_seconds")
    gaps = np.subtract(mine[0]["first_losses"], peer[0]["first_losses"])
    cpu = median(peer, "train_cpu_seconds") / 2
    return "\n".join([
        "",
        f"jaxhpo pbt, from process start to report   {us:8.1f} s  (median of {len(mine)})",
        f"  of which segments                        {median(mine, 'segments_seconds'):8.1f} s",
        f"Ray Tune, without its imports              {ray:8.1f} s  (median of {len(peer)})",
        f"  its training alone on two cores          {cpu:8.1f} s",
        f"PyTorch by hand, one thread                {loop['wall_seconds']:8.1f} s",
        f"ratio to Ray Tune                          {ray / us:8.2f}",
        f"ratio to Ray Tune's training alone         {cpu / us:8.2f}",
        "",
        "held-out loss after the first 50 steps, same points: "
        f"ours minus theirs {gaps.mean():+.4f} ± {gaps.std():.4f} (std over members)",
        f"best at the end: ours {min(mine[0]['final_losses']):.4f}, "
        f"theirs {min(peer[0]['final_losses']):.4f}",
    ])  # fmt: skip


if __name__ == "__main__":
    main()
