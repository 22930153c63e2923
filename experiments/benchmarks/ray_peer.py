"""Population-based training with Ray Tune and PyTorch: the peer of the default job.

It shares no code with the product: the same model, optimizer, data and fitness written in plain
PyTorch, and Ray Tune set up as its documentation advises (README.md beside this file has the
sources). Three modes, each printing one line of JSON:

    python ray_peer.py --train train.npy --held-out held_out.npy                 # Ray Tune
    python ray_peer.py --train train.npy --held-out held_out.npy --loop          # by hand, no Ray
    python ray_peer.py --train train.npy --held-out held_out.npy --eager-alone   # one step alone

`--tiny` makes any of them end in under a minute.
"""

import argparse
import faulthandler
import json
import logging
import math
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

SETTINGS = {  # read by Ray when it is imported
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no JSON, CSV or TensorBoard files
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # no periodic snapshot of the experiment
    "TUNE_WARN_THRESHOLD_S": "60",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # its 15 would starve the trials on a machine with other work
    "OMP_NUM_THREADS": "1",
}
IMPORTING = time.perf_counter()
os.environ.update(SETTINGS)

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import Tensor, nn  # noqa: E402

IMPORT_TORCH_SECONDS = time.perf_counter() - IMPORTING
LAYERS, WIDTH, HEADS, MLP, CONTEXT, INIT_STD, NORM_EPS, THETA = 2, 64, 4, 256, 64, 0.02, 1e-6, 1e4
MUTATED = ("peak_lr", "weight_decay")


class Block(nn.Module):
    """Pre-norm attention and feed-forward, no biases."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.RMSNorm(WIDTH, eps=NORM_EPS)
        self.norm2 = nn.RMSNorm(WIDTH, eps=NORM_EPS)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, WIDTH, bias=False)
        self.up = nn.Linear(WIDTH, MLP, bias=False)
        self.down = nn.Linear(MLP, WIDTH, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, _ = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, length, 3, HEADS, WIDTH // HEADS)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        query, key = rotate(query, cos, sin), rotate(key, cos, sin)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, WIDTH))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions, the halves of a head being the pairs (Llama's layout)."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class Model(nn.Module):
    """Decoder of 2 blocks, width 64, tied read-out: `i64[B, T] -> f32[B, T, V]`."""

    def __init__(self, vocab: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embedding = nn.Embedding(vocab, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = nn.RMSNorm(WIDTH, eps=NORM_EPS)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                residual = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(parameter, 0, INIT_STD / (math.sqrt(2 * LAYERS) if residual else 1))
        half = WIDTH // HEADS // 2
        angles = torch.arange(CONTEXT)[:, None] * THETA ** (-torch.arange(half) / half)
        angles = torch.cat((angles, angles), dim=-1)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        return F.linear(self.norm(x), self.embedding.weight)


def loss_of(model: nn.Module, windows: Tensor) -> Tensor:
    """Mean cross-entropy in nats of `i64[B, T + 1]`, each token predicting the next."""
    logits = model(windows[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())


class Data:
    """Batches `i64[B, T + 1]`, the same for every member: `train(step)`, and `held_out`, fixed."""

    def __init__(self, job: dict) -> None:
        self.tokens = np.load(job["train"], mmap_mode="r")
        steps, batch = job["steps"], job["batch"]
        if job["windows"]:
            self.starts = np.load(job["windows"])
        else:
            self.starts = starts(job["seed"], len(self.tokens), (steps, batch))
        if self.starts.shape[0] < steps or self.starts.shape[1] != batch:
            raise SystemExit(f"--windows is {self.starts.shape}; needed: ({steps}, {batch})")
        held_out = np.load(job["held_out"], mmap_mode="r")
        if job["held_out_windows"]:
            fixed = np.load(job["held_out_windows"])
        else:
            fixed = starts(job["seed"] + 1, len(held_out), (job["held_out_batches"], batch))
        self.held_out = [cut(held_out, row) for row in fixed]

    def train(self, step: int) -> Tensor:
        return cut(self.tokens, self.starts[step])


def starts(seed: int, length: int, shape: tuple[int, int]) -> np.ndarray:
    return np.random.Generator(np.random.Philox(seed)).integers(0, length - CONTEXT, shape)


def cut(tokens: np.ndarray, at: np.ndarray) -> Tensor:
    return torch.from_numpy(tokens[at[:, None] + np.arange(CONTEXT + 1)].astype(np.int64))


class Member:
    """One model, its optimizer and step. `adamw` chooses torch's implementation of the update."""

    def __init__(self, job: dict, member: int, point: dict) -> None:
        self.job, self.data, self.step = job, Data(job), 0
        self.model = Model(job["vocab"], job["seed"] * 1000 + member)
        named = list(self.model.named_parameters())
        groups = [
            {"params": [p for n, p in named if "norm" not in n]},
            {"params": [p for n, p in named if "norm" in n], "weight_decay": 0.0},
        ]
        self.parameters = [p for _, p in named]
        choice = {"fused": {"fused": True}, "foreach": {"foreach": True}}.get(job["adamw"], {})
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-8, **choice)
        self.set_point(point)
        if job["compile"]:
            self.model.compile()

    def restart(self, member: int, point: dict) -> None:
        """Become another newborn in place, so that what was compiled stays compiled."""
        newborn = Model(self.job["vocab"], self.job["seed"] * 1000 + member)
        self.model.load_state_dict(newborn.state_dict())
        self.optimizer.state.clear()
        self.step = 0
        self.set_point(point)

    def set_point(self, point: dict) -> None:
        self.peak_lr = point["peak_lr"]
        self.optimizer.param_groups[0]["weight_decay"] = point["weight_decay"]

    def update(self, windows: Tensor) -> None:
        rate = self.peak_lr * min(1.0, self.step / self.job["warmup"])
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss_of(self.model, windows).backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0, foreach=self.job["adamw"] != "plain")
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1

    def train(self, steps: int) -> dict:
        """Train; seconds by the clock, and on a core (which waiting cannot inflate)."""
        wall, cpu = time.perf_counter(), time.thread_time()
        for _ in range(steps):
            self.update(self.data.train(self.step))
        return {
            "train_wall_seconds": time.perf_counter() - wall,
            "train_cpu_seconds": time.thread_time() - cpu,
        }

    @torch.no_grad()
    def evaluate(self) -> dict:
        """Mean loss on the fixed held-out batches; not a number is infinite, so it never wins."""
        cpu = time.thread_time()
        loss = sum(loss_of(self.model, batch).item() for batch in self.data.held_out)
        loss = loss / len(self.data.held_out)
        seconds = time.thread_time() - cpu
        return {"loss": loss if math.isfinite(loss) else 1e9, "eval_cpu_seconds": seconds}

    def state(self) -> dict:
        parts = self.model.state_dict(), self.optimizer.state_dict()
        return {"model": parts[0], "optimizer": parts[1], "step": self.step}

    def load(self, state: dict) -> None:
        decay = self.optimizer.param_groups[0]["weight_decay"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.optimizer.param_groups[0]["weight_decay"] = decay  # the state holds the donor's
        self.step = state["step"]


def make_trainable() -> type:
    """The class form of a trainable, which an actor that is reused needs."""
    from ray import tune

    class Trainable(tune.Trainable):
        def setup(self, config: dict) -> None:
            torch.set_num_threads(1)
            self.job = config["job"]
            self.member = Member(self.job, config["member"], config)

        def step(self) -> dict:
            trained = self.member.train(self.job["interval"])
            return {**trained, **self.member.evaluate(), "step": self.member.step}

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            torch.save(self.member.state(), os.path.join(checkpoint_dir, "state.pt"))

        def load_checkpoint(self, checkpoint_dir: str) -> None:
            path = os.path.join(checkpoint_dir, "state.pt")
            self.member.load(torch.load(path, weights_only=True))

        def reset_config(self, new_config: dict) -> bool:
            # a newborn may get another trial's actor; if not newborn, load_checkpoint follows
            self.member.restart(new_config["member"], new_config)
            return True

    return Trainable


def run_ray(job: dict, points: list[dict], options: argparse.Namespace) -> dict:
    """The whole job through Ray Tune, timed from before `ray.init` to the results."""
    began = time.perf_counter()
    import ray
    from ray import tune
    from ray.tune.schedulers import PopulationBasedTraining

    imported = time.perf_counter()
    storage = Path(tempfile.mkdtemp(prefix="peer", dir=fast_folder()))
    os.environ["TMPDIR"] = str(storage)  # checkpoints are written here first
    started = time.perf_counter()
    ray.init(
        num_cpus=options.cores,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        configure_logging=True,
        object_store_memory=100 * 2**20,
        _temp_dir=str(storage / "ray"),
    )
    initialised = time.perf_counter()
    scheduler = PopulationBasedTraining(
        time_attr="training_iteration",
        perturbation_interval=1,
        hyperparam_mutations={
            "peak_lr": tune.loguniform(*options.lr_range),
            "weight_decay": tune.loguniform(*options.decay_range),
        },
        quantile_fraction=0.25,
        resample_probability=0.25,
        perturbation_factors=(1.2, 0.8),
        custom_explore_fn=clipper(options),
        log_config=False,
        synch=options.synch,
    )
    space = {
        "job": job,
        "member": tune.grid_search(list(range(len(points)))),
        **{name: tune.sample_from(drawn(points, name)) for name in MUTATED},
    }
    random.seed(job["seed"])  # the scheduler draws from it
    journal = make_journal(job["steps"])
    try:
        tuner = tune.Tuner(
            tune.with_resources(make_trainable(), {"cpu": options.trial_cpus}),
            param_space=space,
            tune_config=tune.TuneConfig(
                metric="loss",
                mode="min",
                scheduler=scheduler,
                reuse_actors=True,
                time_budget_s=options.timeout,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name="peer",
                storage_path=str(storage / "results"),
                stop={"training_iteration": job["steps"] // job["interval"]},
                verbose=0,
                callbacks=[journal],
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, num_to_keep=4),
            ),
        )
        results = tuner.fit()
        ended = time.perf_counter()
        errors = [str(error) for error in results.errors]
        final = [result.metrics.get("loss") for result in results if result.metrics]
        journal.ticks |= processor_ticks()
    finally:
        ray.shutdown()
        shutil.rmtree(storage, ignore_errors=True)
    return {
        "versions": {"ray": ray.__version__},
        "import_ray_seconds": imported - began,
        "wall_seconds": ended - started,
        "wall_seconds_without_init": ended - initialised,
        "first_result_seconds": journal.times[0] - started if journal.times else None,
        "exploits": scheduler._num_perturbations,
        "checkpoints": scheduler._num_checkpoints,
        "final_losses": final,
        "errors": errors[:3],
        "all_cpu_seconds": sum(journal.ticks.values()) / os.sysconf("SC_CLK_TCK"),
        **summary(journal.rows, job),
    }


def processor_ticks() -> dict[int, int]:
    """Clock ticks on a core of this process and all it started (Ray's servers and actors)."""
    ticks, parents = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        pid = int(path.parent.name)
        parents[pid], ticks[pid] = int(fields[1]), int(fields[11]) + int(fields[12])
    ours = {os.getpid()}
    for _ in range(8):  # generations
        ours |= {pid for pid, parent in parents.items() if parent in ours}
    return {pid: ticks[pid] for pid in ours if pid in ticks}


def clipper(options: argparse.Namespace):
    """Keeps explored values inside the space, which Ray by itself does not."""
    low = (options.lr_range[0], options.decay_range[0])
    high = (options.lr_range[1], options.decay_range[1])

    def clip(config: dict) -> dict:
        for name, least, most in zip(MUTATED, low, high, strict=True):
            config[name] = min(max(config[name], least), most)
        return config

    return clip


def drawn(points: list[dict], name: str):
    return lambda spec: points[spec.config.member][name]


def make_journal(last_step: int):
    """Collects in the driver's memory what trials report, and now and then the cores' time."""
    from ray import tune

    class Journal(tune.Callback):
        def __init__(self) -> None:
            self.rows, self.times, self.ticks = [], [], {}

        def on_trial_result(self, iteration, trials, trial, result, **info) -> None:
            member = trial.evaluated_params["member"]
            names = ("step", "loss", "train_wall_seconds", "train_cpu_seconds", "eval_cpu_seconds")
            self.times.append(time.perf_counter())
            self.rows.append({"member": member, **{name: result[name] for name in names}})
            if result["step"] == last_step or len(self.rows) % 8 == 0:  # actors may end
                self.ticks |= processor_ticks()

    return Journal()


def run_loop(job: dict, points: list[dict], options: argparse.Namespace) -> dict:
    """The same PBT written by hand: members one after another in this process, copies in memory."""
    torch.set_num_threads(options.threads)
    started = time.perf_counter()
    points = [dict(point) for point in points]
    members = [Member(job, index, point) for index, point in enumerate(points)]
    chooser = random.Random(job["seed"])
    clip = clipper(options)
    rows, exploits = [], 0
    while members[0].step < job["steps"]:
        for index, member in enumerate(members):
            trained = member.train(job["interval"])
            rows.append({"member": index, **trained, **member.evaluate(), "step": member.step})
        if members[0].step < job["steps"]:
            order = sorted(range(len(members)), key=lambda i: rows[i - len(members)]["loss"])
            count = math.ceil(len(members) / 4)
            for loser in order[-count:]:
                donor = chooser.choice(order[:count])
                points[loser] = clip(explore(points[donor], chooser, options))
                members[loser].set_point(points[loser])
                members[loser].load(members[donor].state())
                exploits += 1
    wall = time.perf_counter() - started
    final = [row["loss"] for row in rows[-len(members) :]]
    return {
        "wall_seconds": wall,
        "exploits": exploits,
        "final_losses": final,
        "threads": options.threads,
        **summary(rows, job),
    }


def explore(point: dict, chooser: random.Random, options: argparse.Namespace) -> dict:
    ranges = dict(zip(MUTATED, (options.lr_range, options.decay_range), strict=True))
    new = {}
    for name, (low, high) in ranges.items():
        if chooser.random() < 0.25:
            new[name] = math.exp(chooser.uniform(math.log(low), math.log(high)))
        else:
            new[name] = point[name] * chooser.choice((1.2, 0.8))
    return new


def run_alone(job: dict, points: list[dict], options: argparse.Namespace) -> dict:
    """Median seconds of one member's step by itself, for each way to run it."""
    found = {}
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for adamw in ("fused", "foreach", "plain"):
            member = Member({**job, "adamw": adamw, "compile": False}, 0, points[0])
            found[f"threads={threads} adamw={adamw}"] = median_step(member, options.alone_steps)
    if options.compile:
        torch.set_num_threads(1)
        member = Member({**job, "compile": True}, 0, points[0])
        wall, ticks = time.perf_counter(), sum(processor_ticks().values())
        member.train(3)
        member.evaluate()
        ticks = sum(processor_ticks().values()) - ticks
        found["compilation"] = {
            "wall": time.perf_counter() - wall,
            "cpu": ticks / os.sysconf("SC_CLK_TCK"),
        }
        found["threads=1 compiled"] = median_step(member, options.alone_steps)
    return {"seconds_per_step": found}


def median_step(member: Member, steps: int) -> dict:
    """Medians by the clock and on a core; the second sees only the calling thread."""
    member.train(5)
    rows = [member.train(1) for _ in range(steps)]
    return {
        kind: float(np.median([row[f"train_{kind}_seconds"] for row in rows]))
        for kind in ("wall", "cpu")
    }


def summary(rows: list[dict], job: dict) -> dict:
    """What was trained, how long it took by itself, and the losses before any exploit."""
    first = {row["member"]: row["loss"] for row in rows if row["step"] == job["interval"]}
    total = {
        name: sum(row[name] for row in rows)
        for name in ("train_wall_seconds", "train_cpu_seconds", "eval_cpu_seconds")
    }
    return {
        **total,
        "steps_trained": len(rows) * job["interval"],
        "first_losses": [first.get(index) for index in range(job["members"])],
    }


def initial_points(options: argparse.Namespace) -> list[dict]:
    """The members' first hyperparameters: from `--points`, else drawn log-uniformly."""
    if options.points:
        return json.loads(Path(options.points).read_text())[: options.members]
    draw = np.random.Generator(np.random.Philox(options.seed + 2))
    logs = [np.log(span) for span in (options.lr_range, options.decay_range)]
    values = [np.exp(draw.uniform(*span, options.members)) for span in logs]
    return [dict(zip(MUTATED, map(float, pair), strict=True)) for pair in zip(*values, strict=True)]


def fast_folder() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--train", required=True, help=".npy of uint8/uint16 tokens")
    add("--held-out", required=True, help=".npy of uint8/uint16 tokens")
    add("--windows", help=".npy int64[steps, batch]: where the training windows start")
    add("--held-out-windows", help=".npy int64[batches, batch]: the same for held-out batches")
    add("--points", help="JSON list of {peak_lr, weight_decay}: the first hyperparameters")
    add("--members", type=int, default=8)
    add("--steps", type=int, default=600)
    add("--interval", type=int, default=50)
    add("--warmup", type=int, default=50)
    add("--batch", type=int, default=8)
    add("--held-out-batches", type=int, default=8)
    add("--vocab", type=int, default=256)
    add("--seed", type=int, default=0)
    add("--lr-range", type=float, nargs=2, default=(1e-4, 1e-1))
    add("--decay-range", type=float, nargs=2, default=(1e-3, 1.0))
    add("--adamw", choices=("fused", "foreach", "plain"), default="fused")
    add("--cores", type=int, default=2)
    add("--trial-cpus", type=float, default=1.0, help="cores asked per trial: 1 runs 2 at a time")
    add("--synch", action=argparse.BooleanOptionalAction, default=False, help="default: Ray's")
    add("--threads", type=int, default=1, help="torch threads of --loop")
    add("--alone-steps", type=int, default=100)
    add("--timeout", type=int, default=900, help="seconds after which the run is given up")
    add("--loop", action="store_true", help="hand-written loop, no Ray")
    add("--eager-alone", action="store_true", help="time one step by itself")
    add("--compile", action="store_true", help="torch.compile the model, in every actor")
    add("--tiny", action="store_true", help="4 members, 100 steps")
    options = parser.parse_args(arguments)
    if options.tiny:
        options.members, options.steps = 4, 100
    if options.steps % options.interval:
        parser.error(f"--steps {options.steps} is not a multiple of --interval {options.interval}")
    return options


def give_up(_signal: int, _frame: object) -> None:
    raise TimeoutError("--timeout has passed")


def main() -> None:
    options = parse()
    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(options.timeout + 30)
    faulthandler.dump_traceback_later(options.timeout + 60, exit=True)
    names = ("members", "steps", "interval", "warmup", "batch", "vocab", "seed", "adamw", "compile")
    job = {name: getattr(options, name) for name in (*names, "held_out_batches")}
    for name in ("train", "held_out", "windows", "held_out_windows"):
        path = getattr(options, name)
        job[name] = str(Path(path).resolve()) if path else None
    points = initial_points(options)
    mode = "alone" if options.eager_alone else "loop" if options.loop else "ray"
    found = {"alone": run_alone, "loop": run_loop, "ray": run_ray}[mode](job, points, options)
    if "wall_seconds" in found:
        core_seconds = found["wall_seconds"] * options.cores
        found["share_training"] = found["train_cpu_seconds"] / core_seconds
    versions = {"torch": torch.__version__, "python": sys.version.split()[0]}
    found["versions"] = {**versions, **found.get("versions", {})}
    settings = {"trial_cpus": options.trial_cpus, "synch": options.synch, "cores": options.cores}
    files = ("train", "held_out", "windows", "held_out_windows")
    settings |= {name: value for name, value in job.items() if name not in files}
    parameters = sum(p.numel() for p in Model(options.vocab, 0).parameters())
    report = {"mode": mode, "parameters": parameters, **found, "first_points": points}
    report |= {"import_torch_seconds": IMPORT_TORCH_SECONDS, "settings": settings}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
