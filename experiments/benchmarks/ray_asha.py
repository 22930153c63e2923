"""ASHA with Ray Tune and PyTorch, one process a trial: the peer of our own ASHA.

Shares model, optimizer and data with `ray_peer.py`, and no code with the product. A trial trains
from rung to rung, evaluates and reports there; Ray's `ASHAScheduler` stops what is not among the
best of those that have come as far. One line of JSON comes out:

    python ray_asha.py --train train.npy --held-out held_out.npy --points points.json
"""

import argparse
import json
import logging
import math
import os
import shutil
import tempfile
import time
from pathlib import Path

import ray_peer  # sets what Ray reads when it is imported
import torch


def make_trainable() -> type:
    from ray import tune

    class Trainable(tune.Trainable):
        def setup(self, config: dict) -> None:
            torch.set_num_threads(1)
            self.job = config["job"]
            self.member = ray_peer.Member(self.job, config["member"], config)

        def step(self) -> dict:
            end = next(rung for rung in self.job["rungs"] if rung > self.member.step)
            trained = self.member.train(end - self.member.step)
            return {**trained, **self.member.evaluate(), "trained": self.member.step}

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            torch.save(self.member.state(), os.path.join(checkpoint_dir, "state.pt"))

        def load_checkpoint(self, checkpoint_dir: str) -> None:
            path = os.path.join(checkpoint_dir, "state.pt")
            self.member.load(torch.load(path, weights_only=True))

    return Trainable


def run(job: dict, points: list[dict], options: argparse.Namespace) -> dict:
    """The whole search, timed from before `ray.init` to the results."""
    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler

    storage = Path(tempfile.mkdtemp(prefix="peer", dir=ray_peer.fast_folder()))
    os.environ["TMPDIR"] = str(storage)
    started = time.perf_counter()
    ray.init(
        num_cpus=options.cores,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=100 * 2**20,
        _temp_dir=str(storage / "ray"),
    )
    initialised = time.perf_counter()
    scheduler = ASHAScheduler(
        time_attr="trained",
        max_t=job["steps"],
        grace_period=job["rungs"][0],
        reduction_factor=options.eta,
        brackets=1,
    )
    rows: list[dict] = []

    class Journal(tune.Callback):
        def on_trial_result(self, iteration, trials, trial, result, **info) -> None:
            names = ("trained", "loss", "train_cpu_seconds", "train_wall_seconds")
            member = trial.evaluated_params["member"]
            rows.append({"member": member, **{name: result[name] for name in names}})

    space = {
        "job": job,
        "member": tune.grid_search(list(range(len(points)))),
        **{name: tune.sample_from(ray_peer.drawn(points, name)) for name in ray_peer.MUTATED},
    }
    try:
        tune.Tuner(
            tune.with_resources(make_trainable(), {"cpu": 1}),
            param_space=space,
            tune_config=tune.TuneConfig(
                metric="loss",
                mode="min",
                scheduler=scheduler,
                reuse_actors=options.reuse,
                time_budget_s=options.timeout,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name="asha",
                storage_path=str(storage / "results"),
                stop={"trained": job["steps"]},
                verbose=0,
                callbacks=[Journal()],
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0),
            ),
        ).fit()
        ended = time.perf_counter()
    finally:
        ray.shutdown()
        shutil.rmtree(storage, ignore_errors=True)
    reached = {row["member"]: row["trained"] for row in rows}
    cpu = sum(row["train_cpu_seconds"] for row in rows)
    return {
        "wall_seconds": ended - started,
        "wall_seconds_without_init": ended - initialised,
        "train_cpu_seconds": cpu,
        "share_training": cpu / ((ended - started) * options.cores),
        "trials": len(reached),
        "member_steps": sum(reached.values()),
        "best_loss": min(row["loss"] for row in rows if math.isfinite(row["loss"])),
        "reached": sorted(reached.values(), reverse=True),
        "versions": {"ray": ray.__version__, "torch": torch.__version__},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--train", required=True)
    add("--held-out", required=True)
    add("--windows", required=True, help=".npy int64[steps, batch]")
    add("--held-out-windows", required=True, help=".npy int64[batches, batch]")
    add("--points", required=True, help="JSON list of {peak_lr, weight_decay}")
    add("--vocab", type=int, default=256)
    add("--rungs", type=int, nargs="+", default=[9, 27, 81, 243])
    add("--eta", type=int, default=3)
    add("--warmup", type=int, default=50)
    add("--cores", type=int, default=2)
    add("--reuse", action="store_true", help="reuse actors (Ray's documentation for short trials)")
    add("--timeout", type=int, default=900)
    options = parser.parse_args()
    paths = ("train", "held_out", "windows", "held_out_windows")
    job = {
        **{name: str(Path(getattr(options, name)).resolve()) for name in paths},
        "rungs": options.rungs,
        "steps": options.rungs[-1],
        "warmup": options.warmup,
        "vocab": options.vocab,
        "batch": 8,
        "seed": 0,
        "held_out_batches": 8,
        "adamw": "fused",
        "compile": False,
    }
    print(json.dumps(run(job, json.loads(Path(options.points).read_text()), options)))


if __name__ == "__main__":
    main()
