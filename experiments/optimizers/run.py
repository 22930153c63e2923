"""L2 or decoupled decay, three kinds of clipping near instability, decay with bfloat16 weights.

    python experiments/optimizers/run.py            # writes results.json and optimizers.png here
    python experiments/optimizers/run.py --tiny DIR # the same on a toy, in a minute, into DIR

Every arm is trained from the same seeds; a seed decides initial weights and order of batches. Arms
that differ in numbers only are members of one population: one program a question.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from jaxhpo.config import replace as put
from jaxhpo.config.run import TrainRun
from jaxhpo.population.config import prepare_backend

sys.path.append(str(Path(__file__).parents[1]))

from measuring import paired

HERE = Path(__file__).parent

FULL: dict[str, Any] = {}
"""The default model, corpus and schedule."""

TINY = {
    **FULL,
    "steps": 40,
    "schedule.warmup_steps": 5,
    "model.d_model": 16,
    "model.context": 16,
    "data.source": "synthetic",
    "data.batch_size": 4,
    "data.eval_batches": 2,
}

DECOUPLED = {f"decoupled {c:g}": {"optimizer.weight_decay": c} for c in (0.0, 0.1, 0.3, 1.0, 3.0)}
L2 = {f"L2 {c:g}": {"optimizer.weight_decay": c} for c in (1e-4, 1e-3, 1e-2)}
HALF = {f"bfloat16, decay {c:g}": {"optimizer.weight_decay": c} for c in (0.0, 0.3)}
OFF = {"optimizer.clip_norm": math.inf, "optimizer.clip_tensor": math.inf}
CLIPS = {
    "none": OFF,
    "global 1": OFF | {"optimizer.clip_norm": 1.0},
    "global 0.3": OFF | {"optimizer.clip_norm": 0.3},
    "component 0.3": OFF | {"optimizer.clip_tensor": 0.3},
    "component 0.05": OFF | {"optimizer.clip_tensor": 0.05},
}
RATES = (1e-2, 2e-2, 3e-2, 4e-2, 5e-2, 6e-2)
"""Tried without clipping, to find where training is near unstable."""


@dataclass(frozen=True)
class Case:
    """A base config, its seeds, and the corpora that differ in the order of batches only."""

    config: TrainRun
    seeds: Sequence[int]
    corpora: Sequence[Any]

    @property
    def bigram(self) -> float:
        return float(self.corpora[0].bigram_loss())


def train(case: Case, arms: Mapping[str, Mapping[str, Any]], seeds: Sequence[int]) -> dict:
    """Final held-out loss by arm and seed, and what was measured, of one population."""
    import jax

    from jaxhpo.population import hyperparams
    from jaxhpo.population.engine import Engine
    from jaxhpo.population.memory import unrolled
    from jaxhpo.population.mesh import make_mesh
    from jaxhpo.population.rows import make_rows
    from jaxhpo.population.task import LanguageModel

    begun = time.monotonic()
    names, points, streams = [], [], []
    for name, point in arms.items():
        for index, _ in enumerate(seeds):
            names.append(name)
            points.append(point)
            streams.append(index)
    config = case.config
    every = config.tracker.diagnose_every
    task = LanguageModel(config.model, config.optimizer, unrolled(config), diagnose_every=every)
    engine = Engine(task, make_mesh(), len(points), run_seed=config.seed)
    rows = make_rows(
        hyperparams.lower(config, sorted({k for point in points for k in point}), points),
        seeds=[seeds[i] for i in streams],
        steps=[segment_of(config)] * len(points),
        newborn=[True] * len(points),
        streams=streams,
    )
    population = engine.assemble(engine.empty(rows), rows)
    curves: list[dict[str, np.ndarray]] = []
    for start in range(0, config.steps, segment_of(config)):
        parts = [corpus.train.batch_at(start, segment_of(config)) for corpus in case.corpora]
        parts = parts[: len(seeds)]
        batches = jax.tree.map(lambda *leaves: np.stack(leaves), *parts)
        population, metrics = engine.train(population, rows, batches)
        curves.append({k: np.asarray(v)[: len(points)] for k, v in metrics.items()})
    held_out = engine.evaluate(population, rows, case.corpora[0].held_out)
    losses = np.asarray(held_out, np.float64)[: len(points)].mean(1)
    whole = {k: np.concatenate([part[k] for part in curves], 1) for k in curves[0]}
    found: dict[str, Any] = {}
    for name in arms:
        mine = [i for i, each in enumerate(names) if each == name]
        clipped = {
            k: float(np.nanmean(v[mine])) for k, v in whole.items() if k.startswith("clipped/")
        }
        found[name] = {
            "losses": [float(losses[i]) for i in mine],
            "lr_per_norm_at_half": nearest(whole["lr_per_norm"][mine], config.steps // 2),
            "clipped": {k: share for k, share in clipped.items() if math.isfinite(share)},
        }
    seconds = time.monotonic() - begun
    print(f"{len(points)} runs of {config.steps} steps: {seconds:.0f} s", flush=True)
    return {"arms": found, "seconds": seconds, "built": engine.built}


def segment_of(config: TrainRun) -> int:
    return math.gcd(config.steps, 100)


def nearest(values: np.ndarray, step: int) -> float:
    """Mean over rows of the value measured last before `step`."""
    made = [row[:step][np.isfinite(row[:step])] for row in values]
    return float(np.mean([row[-1] for row in made if len(row)]))


def compared(result: Mapping[str, Any], arm: str, base: str) -> dict[str, Any]:
    """arm - base, paired by seed; where a run has no finite loss there is nothing to average."""
    return interval(*(result[name]["losses"] for name in (arm, base)))


def interval(a: Sequence[float], b: Sequence[float]) -> dict[str, Any]:
    """Mean of a - b, half of its 95% interval, and whether that excludes zero."""
    if not np.isfinite([a, b]).all():
        return {"mean": math.nan, "half_width": math.nan, "resolved": False}
    mean, half = paired([float(x) for x in a], [float(x) for x in b])
    return {"mean": mean, "half_width": half, "resolved": abs(mean) > half}


def failed(losses: Sequence[float], bigram: float) -> list[bool]:
    """A run has failed that ends without a finite loss or above the byte-bigram model's."""
    return [not (math.isfinite(loss) and loss < bigram) for loss in losses]


def question_decay(case: Case) -> dict[str, Any]:
    """L2 against decoupled decay."""
    arms = train(case, DECOUPLED, case.seeds)["arms"]
    adam = replace(case, config=put(case.config, "optimizer.kind", "adam"))
    arms |= train(adam, L2, case.seeds)["arms"]
    best = {
        kind: min((n for n in arms if n.startswith(kind)), key=lambda n: np.mean(arms[n]["losses"]))
        for kind in ("decoupled", "L2")
    }
    without = "decoupled 0"
    gaps = {f"{name} - {without}": compared(arms, name, without) for name in arms}
    del gaps[f"{without} - {without}"]
    gaps["best of each: L2 - decoupled"] = compared(arms, best["L2"], best["decoupled"])
    return {"arms": arms, "best": best, "differences": gaps}


def question_clipping(case: Case) -> dict[str, Any]:
    """No clipping, global norm, component-wise, where training is near unstable."""
    searching = {f"{rate:g}": OFF | {"schedule.peak_lr": rate} for rate in RATES}
    tried = train(case, searching, case.seeds[:2])["arms"]
    shares = {n: float(np.mean(failed(row["losses"], case.bigram))) for n, row in tried.items()}
    # the highest rate at which not all runs fail
    rate = max((rate for rate in RATES if shares[f"{rate:g}"] < 1), default=RATES[0])
    config = put(case.config, "schedule.peak_lr", rate)
    arms = train(replace(case, config=config), CLIPS, case.seeds)["arms"]
    for row in arms.values():
        gone = failed(row["losses"], case.bigram)
        sound = [loss for loss, bad in zip(row["losses"], gone, strict=True) if not bad]
        row["failed_share"] = float(np.mean(gone))
        row["spread"] = float(np.std(sound, ddof=1)) if len(sound) > 1 else math.nan
    gaps = {f"{name} - none": compared(arms, name, "none") for name in arms if name != "none"}
    return {"searched": tried, "failed": shares, "rate": rate, "arms": arms, "differences": gaps}


def question_dtype(case: Case, decoupled: Mapping[str, Any]) -> dict[str, Any]:
    """Decay on and off, with float32 and with bfloat16 parameters."""
    half = replace(case, config=put(case.config, "model.param_dtype", "bfloat16"))
    arms = dict(train(half, HALF, case.seeds)["arms"])
    for c in ("0", "0.3"):
        arms[f"float32, decay {c}"] = decoupled[f"decoupled {c}"]
    name = lambda dtype, c: f"{dtype}, decay {c}"
    gaps = {
        f"{dtype}: decay 0.3 - 0": compared(arms, name(dtype, "0.3"), name(dtype, "0"))
        for dtype in ("float32", "bfloat16")
    }
    gaps |= {
        f"decay {c}: bfloat16 - float32": compared(arms, name("bfloat16", c), name("float32", c))
        for c in ("0", "0.3")
    }
    gain = [
        np.subtract(arms[name(dtype, "0.3")]["losses"], arms[name(dtype, "0")]["losses"])
        for dtype in ("bfloat16", "float32")
    ]
    gaps["effect of decay: bfloat16 - float32"] = interval(*gain)
    return {"arms": arms, "differences": gaps}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", metavar="DIR", help="a toy, in a minute, written to DIR")
    asked = parser.parse_args()
    config = TrainRun()
    for name, value in (TINY if asked.tiny else FULL).items():
        config = put(config, name, value)
    out = Path(asked.tiny) if asked.tiny else HERE
    prepare_backend(config.execution, 8)
    import jax

    from jaxhpo.data.corpus import open_corpus
    from jaxhpo.population.cache import use_compilation_cache
    from jaxhpo.study.setup import environment, with_vocabulary

    use_compilation_cache(config.execution)
    begun, seeds = time.monotonic(), tuple(range(5))
    corpora = [open_corpus(config.data, config.model.context, seed) for seed in seeds]
    case = Case(with_vocabulary(config, corpora[0]), seeds, corpora)
    decay = question_decay(case)
    result = {
        "steps": config.steps,
        "seeds": list(seeds),
        "device": f"{jax.devices()[0].device_kind}, {jax.device_count()} devices",
        "environment": environment(),
        "bigram": case.bigram,
        "decay": decay,
        "dtype": question_dtype(case, decay["arms"]),
        "clipping": question_clipping(case),
    }
    result["seconds"] = time.monotonic() - begun
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(json.dumps(finite(result), indent=1) + "\n")
    from figure import draw

    draw(result, out / "optimizers.png")
    print_table(result)


def finite(value: Any) -> Any:
    """The value with null for numbers that JSON has not."""
    if isinstance(value, Mapping):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_table(result: Mapping[str, Any]) -> None:
    print(f"byte bigram {result['bigram']:.4f}; {result['seconds']:.0f} s in all")
    for question in ("decay", "clipping", "dtype"):
        for name, row in result[question]["arms"].items():
            print(f"{question:9} {name:22} {np.mean(row['losses']):.4f}  {row['losses']}")
        for name, row in result[question]["differences"].items():
            mark = "" if row["resolved"] else "  not resolved"
            print(f"{question:9} {name:40} {row['mean']:+.4f} ± {row['half_width']:.4f}{mark}")


if __name__ == "__main__":
    main()
