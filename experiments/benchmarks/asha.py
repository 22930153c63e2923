"""ASHA in the engine against the same ASHA in Ray Tune with one PyTorch process a trial.

    python experiments/benchmarks/asha.py [--trials 32] [--rounds 3] [--peer-rounds 1] [--json FILE]

Both sides get the same points, tokens, windows, model, rungs (9, 27, 81, 243 steps, eta 3) and
fitness (raw held-out loss), and stop a trial that is not among the best third of those that have
come as far. Ours is `jaxhpo search` in a process of its own from its start to its end, with
nothing compiled before it; Ray's is timed from before `ray.init` to the results, without imports.
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

sys.path.append(str(Path(__file__).parents[1]))
from inputs import named, peer_arguments
from measuring import scheduler_of

from jaxhpo.config import to_toml
from jaxhpo.config.run import SearchRun
from jaxhpo.record.history import history
from jaxhpo.schedules.config import ScheduleConfig
from jaxhpo.search.config import SearchConfig

PEER = Path(__file__).with_name("ray_asha.py")
RUNGS, ETA, WARMUP = (9, 27, 81, 243), 3, 50
SPACE = {
    "schedule.peak_lr": "log(0.0001, 0.1)",
    "optimizer.weight_decay": "log(0.001, 1.0)",
}


def config(trials: int, out: str | None = None) -> SearchRun:
    return SearchRun(
        steps=RUNGS[-1],
        out=out,
        schedule=ScheduleConfig(kind="constant", warmup_steps=WARMUP),
        search=SearchConfig(
            scheduler="asha",
            trials=trials,
            eta=ETA,
            min_steps=RUNGS[0],
            asynchrony="stop",
            rank="loss",
        ),
        space=SPACE,
    )


def points(trials: int) -> list[dict]:
    """The points that our search will try."""
    return named(scheduler_of(config(trials)).foreseen or ())


def ours(place: Path, number: int, trials: int) -> dict:
    run, file = place / f"run-{number}", place / f"config-{number}.toml"
    file.write_text(to_toml(config(trials, str(run))))
    environment = {**os.environ, "XDG_CACHE_HOME": str(place / f"cache-{number}")}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    tokens = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxhpo"
    command = [sys.executable, "-m", "jaxhpo", "search", "--config", str(file)]
    start = time.perf_counter()
    subprocess.run(
        [*command, "--data.cache", str(tokens)], check=True, env=environment, capture_output=True
    )
    seconds = time.perf_counter() - start
    past = history(run)
    reached = {r["trial"]: r["step"] for report in past.reports for r in report["results"]}
    return {
        "wall_seconds": seconds,
        "segments_seconds": past.finish["seconds"],
        "member_steps": sum(reached.values()),
        "best_loss": past.finish["best"]["loss"],
        "reached": sorted(reached.values(), reverse=True),
    }


def theirs(arguments: list[str], *more: str) -> dict:
    found = subprocess.run(
        [sys.executable, str(PEER), *arguments, *more], check=True, capture_output=True, text=True
    )
    return json.loads(found.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3, help="runs of ours; the median counts")
    parser.add_argument("--peer-rounds", type=int, default=1, help="runs of Ray Tune, each kind")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        arguments = peer_arguments(place, config(options.trials), points(options.trials))
        arguments += ["--warmup", str(WARMUP)]
        found = {
            "jaxhpo": [ours(place, i, options.trials) for i in range(options.rounds)],
            "ray, a process a trial": [theirs(arguments) for _ in range(options.peer_rounds)],
            "ray, actors reused": [
                theirs(arguments, "--reuse") for _ in range(options.peer_rounds)
            ],
        }
    mine = statistics.median(run["wall_seconds"] for run in found["jaxhpo"])
    print(f"{'':26s}{'seconds':>9s}{'member-steps':>14s}{'best loss':>11s}{'x jaxhpo':>10s}")
    for name, runs in found.items():
        median = lambda key, runs=runs: statistics.median(run[key] for run in runs)
        seconds = median("wall_seconds")
        print(
            f"{name:26s}{seconds:9.1f}{median('member_steps'):14,.0f}"
            f"{median('best_loss'):11.4f}{seconds / mine:10.2f}"
        )
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
