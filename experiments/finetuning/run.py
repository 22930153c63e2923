"""Adapters against all weights, searches of a classifier, and clipping over twenty seeds.

    python experiments/finetuning/run.py --english TEXT --sst2 FOLDER          # all three
    python experiments/finetuning/run.py adapt --english TEXT                  # one of them
    python experiments/finetuning/run.py --tiny --out DIR --english TEXT ...   # everything once

TEXT is a text file in English, FOLDER has train.tsv and dev.tsv with sentences and labels. The
bases are trained here first: that of adapt on Python's standard library, that of the others on the
training sentences without their labels. Results go to results.json, runs to --work.
"""

import argparse
import json
import math
import shutil
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jaxhpo
from jaxhpo.config.finetune import FinetuneRun

HERE = Path(__file__).parent
ALL = ("attention/", "mlp/")
QUIET = jaxhpo.TrackerConfig(console="off")
SELDOM = jaxhpo.CheckpointConfig(every_seconds=1e6)
SEEDS = 3
"""Of each search."""
T_975 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 20: 2.093}
"""Student's t at 97.5% by number of values."""

METHODS = {
    "all weights": jaxhpo.AdapterConfig(kind="none"),
    "LoRA": jaxhpo.AdapterConfig(kind="lora", rank=8, alpha=16.0, targets=ALL),
    "AdaLoRA": jaxhpo.AdapterConfig(
        kind="adalora", initial_rank=8, target_rank=5, alpha=16.0, targets=ALL, delta_t=10
    ),
    "AdaMoLE": jaxhpo.AdapterConfig(kind="adamole", experts=3, rank=2, alpha=16.0, targets=ALL),
}
"""LoRA, AdaLoRA and AdaMoLE train equally many numbers, within a hundredth, on a width of 64."""

CLIPS = {
    "none": {"clip_norm": math.inf},
    "global 1": {"clip_norm": 1.0},
    "global 0.3": {"clip_norm": 0.3},
    "component 0.05": {"clip_norm": math.inf, "clip_tensor": 0.05},
}


def base_of(work: Path, tiny: bool) -> Path:
    """A model of Python's standard library, trained once."""
    folder = work / "base"
    if not folder.exists():
        shape = dict(num_layers=1, d_model=16, num_heads=2, context=32) if tiny else {}
        jaxhpo.train(
            jaxhpo.TrainRun(
                out=str(folder),
                steps=20 if tiny else 3000,
                model=jaxhpo.ModelConfig(**shape),
                schedule=jaxhpo.ScheduleConfig(warmup_steps=5 if tiny else 50),
                data=jaxhpo.DataConfig(source="synthetic" if tiny else "stdlib"),
                tracker=QUIET,
                checkpoint=SELDOM,
            )
        )
    return folder


def reader_of(work: Path, sst2: Path, tiny: bool) -> Path:
    """A model of the training sentences, without their labels, in 2048 subwords; trained once."""
    folder = work / "reader"
    if not folder.exists():
        with open(sst2 / "train.tsv", encoding="utf-8") as table:
            sentences = {line.rstrip("\n").split("\t")[1].strip() for line in list(table)[1:]}
        text = work / "sentences.txt"
        text.write_text("\n".join(sorted(s for s in sentences if s.count(" ") >= 4)) + "\n")
        shape = dict(num_layers=1, d_model=16, num_heads=2) if tiny else {}
        jaxhpo.train(
            jaxhpo.TrainRun(
                out=str(folder),
                steps=20 if tiny else 3000,
                model=jaxhpo.ModelConfig(**shape, context=32),
                schedule=jaxhpo.ScheduleConfig(warmup_steps=5 if tiny else 50),
                data=jaxhpo.DataConfig(
                    source=str(text), tokenizer="bpe", vocab_size=300 if tiny else 2048,
                    batch_size=16,
                ),
                tracker=QUIET,
                checkpoint=SELDOM,
            )
        )  # fmt: skip
    return folder


def run(config: FinetuneRun, work: Path, name: str) -> dict[str, Any]:
    """Every trial's last result, the best one, and what it cost."""
    from jaxhpo.record.history import history

    folder = work / name
    shutil.rmtree(folder, ignore_errors=True)
    jaxhpo.finetune(replace(config, out=str(folder), tracker=QUIET, checkpoint=SELDOM))
    past = history(folder)
    last = {row["trial"]: row for event in past.reports for row in event["results"]}
    points = {row["trial"]: row["point"] for event in past.plans for row in event["assignments"]}
    return {
        "trials": [
            {"trial": t, **points[t], "step": r["step"], "loss": r["loss"], **r["metrics"]}
            for t, r in sorted(last.items())
        ],
        "best": past.finish["best"],
        "point": points[past.finish["best"]["trial"]],
        "baseline": {event["name"]: event["loss"] for event in past.of("baseline")},
        "trained": past.start["parameters"],
        "member_steps": past.finish["member_steps"] + past.finish["probe_steps"],
        "seconds": round(past.finish["seconds"], 1),
    }


def interval(values: list[float]) -> dict[str, float]:
    """Mean, and half the width of its 95% interval over seeds."""
    spread = statistics.stdev(values) if len(values) > 1 else math.nan
    half = T_975.get(len(values), math.nan) * spread / math.sqrt(len(values))
    return {"mean": statistics.mean(values), "half": half, "deviation": spread}


def adapt(work: Path, english: Path, tiny: bool) -> dict[str, Any]:
    """A base of Python source adapted to English: each method at the best of its own rates."""
    data = jaxhpo.DataConfig(source=str(english), tokenizer="base", batch_size=8, eval_batches=32)
    plain = FinetuneRun(
        base=str(base_of(work, tiny)),
        task="language-modelling",
        steps=10 if tiny else 400,
        model=jaxhpo.ModelConfig(context=32 if tiny else 64),
        data=replace(data, eval_batches=2) if tiny else data,
        schedule=jaxhpo.ScheduleConfig(kind="linear", warmup_steps=5),
    )
    found = {}
    for name, adapter in METHODS.items():
        rates = (1e-3, 1e-2) if tiny else (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
        grid = jaxhpo.SearchConfig(scheduler="grid", trials=len(rates), segment=400)
        space = {"schedule.peak_lr": f"choice({', '.join(map(str, rates))})"}
        label = name.replace(" ", "-")
        tuned = run(
            replace(plain, adapter=adapter, space=space, search=grid, seed=100),
            work,
            f"adapt-{label}-rates",
        )
        rate = tuned["point"]["schedule.peak_lr"]
        chosen = replace(plain.schedule, peak_lr=rate)
        made = [  # the order of batches is the run's: each seed is a run
            run(
                replace(plain, adapter=adapter, schedule=chosen, seed=seed),
                work,
                f"adapt-{label}-{seed}",
            )
            for seed in range(2 if tiny else 5)
        ]
        found[name] = {
            "peak_lr": rate,
            "rates": {str(row["schedule.peak_lr"]): row["loss"] for row in tuned["trials"]},
            "loss": interval([row["best"]["loss"] for row in made]),
            "each": [row["best"]["loss"] for row in made],
            "trained": made[0]["trained"],
            "seconds": [row["seconds"] for row in made],
            "bigram": made[0]["baseline"].get("bigram"),
        }
        print(name, found[name], flush=True)
    return found


def classify(work: Path, sst2: Path, tiny: bool) -> FinetuneRun:
    """What the two questions on sentiment share."""
    data = jaxhpo.DataConfig(source=str(sst2), tokenizer="base", batch_size=16, eval_batches=64)
    return FinetuneRun(
        base=str(reader_of(work, sst2, tiny)),
        task="classification",
        metric="accuracy",
        model=jaxhpo.ModelConfig(context=32),
        data=replace(data, batch_size=4, eval_batches=4) if tiny else data,
        schedule=jaxhpo.ScheduleConfig(kind="linear", peak_lr=3e-3, warmup_steps=0),
    )


def search(work: Path, sst2: Path, tiny: bool) -> dict[str, Any]:
    """Two searches of rate, batch size, epochs and rank of a LoRA classifier."""
    sizes = "choice(4, 8)" if tiny else "choice(16, 32)"
    plain = replace(
        classify(work, sst2, tiny),
        adapter=replace(METHODS["LoRA"], max_rank=8),
        epoch_examples=16 if tiny else 4000,
        space={
            "schedule.peak_lr": "log(3e-4, 3e-2)",
            "data.batch_size": sizes,
            "epochs": "int(1, 3)",
            "adapter.rank": "int(1, 8)",
        },
    )
    trials = {"two-stage": 16, "tpe": 8}
    found: dict[str, Any] = {}
    for name, count in trials.items():
        config = jaxhpo.SearchConfig(
            scheduler=name, trials=4 if tiny else count, keep=2 if tiny else 4
        )
        rows = []
        for seed in range(2 if tiny else SEEDS):
            made = run(replace(plain, search=config, seed=seed), work, f"search-{name}-{seed}")
            rows.append(made)
            print(name, seed, made["best"], made["point"], made["seconds"], flush=True)
        accuracy = [row["best"]["metrics"]["accuracy"] for row in rows]
        found[name] = {
            "accuracy": interval(accuracy),
            "each": accuracy,
            "points": [row["point"] for row in rows],
            "trials": len(rows[0]["trials"]),
            "member_steps": [row["member_steps"] for row in rows],
            "seconds": [row["seconds"] for row in rows],
        }
    return found


def clip(work: Path, sst2: Path, tiny: bool) -> dict[str, Any]:
    """All weights fine-tuned at a high rate: failed runs and spread over twenty seeds."""
    plain = replace(
        classify(work, sst2, tiny),
        adapter=METHODS["all weights"],
        steps=6 if tiny else 150,
        seeds=3 if tiny else 20,
    )
    found: dict[str, Any] = {}
    for rate in (1e-2,) if tiny else (1e-3, 3e-3, 1e-2, 3e-2):
        for name, changes in CLIPS.items():
            config = replace(
                plain,
                schedule=replace(plain.schedule, peak_lr=rate),
                optimizer=jaxhpo.OptimizerConfig(weight_decay=0.0, **changes),
            )
            made = run(config, work, f"clip-{rate:g}-{name.replace(' ', '-')}")
            accuracy = [float(row["accuracy"]) for row in made["trials"]]
            losses = [float(row["loss"]) for row in made["trials"]]
            share = made["baseline"]["class shares"]
            without = found.get(f"none, rate {rate:g}", {}).get("each", accuracy)
            differences = [a - b for a, b in zip(accuracy, without, strict=True)]
            found[f"{name}, rate {rate:g}"] = {
                "failed": sum(not loss < share for loss in losses) / len(losses),
                "accuracy": interval([a for a in accuracy if math.isfinite(a)]),
                "above none": interval([d for d in differences if math.isfinite(d)]),
                "each": accuracy,
                "lowest": min(accuracy),
                "highest": max(accuracy),
                "class shares": share,
                "seconds": made["seconds"],
            }
            print(rate, name, found[f"{name}, rate {rate:g}"], flush=True)
    return found


QUESTIONS = {"adapt": adapt, "search": search, "clip": clip}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("question", nargs="*", metavar="QUESTION", help=", ".join(QUESTIONS))
    options.add_argument("--english", type=Path)
    options.add_argument("--sst2", type=Path)
    options.add_argument("--tiny", action="store_true")
    options.add_argument("--out", type=Path, default=HERE)
    options.add_argument("--work", type=Path)
    given = options.parse_args()
    work = given.work or Path(tempfile.mkdtemp(prefix="jaxhpo-finetuning-"))
    results = given.out / "results.json"
    found: dict[str, Any] = json.loads(results.read_text()) if results.exists() else {}
    for name in given.question or QUESTIONS:
        source = given.english if name == "adapt" else given.sst2
        if source is None:
            raise SystemExit(f"{name} needs --{'english' if name == 'adapt' else 'sst2'}")
        found[name] = QUESTIONS[name](work, source, given.tiny)
        results.write_text(json.dumps(sound(found), indent=1) + "\n")


def sound(value: Any) -> Any:
    """The same with null for numbers that JSON has none for."""
    if isinstance(value, Mapping):
        return {key: sound(each) for key, each in value.items()}
    if isinstance(value, list):
        return [sound(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    main()
