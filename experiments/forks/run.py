"""Cosine, cyclic cosine, WSD with a fan and a ladder of decays, and WSD-S, at three token budgets.

Every run of every seed is a row of one population: schedules are traced, forks are gathers, one
program trains them all. Writes result.json and figure.png beside this file.

    python experiments/forks/run.py            # about 7 minutes on two CPU cores
    python experiments/forks/run.py --tiny     # a minute: the same with a tenth of the steps
"""

import argparse
import itertools
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from jaxhpo.config.run import TrainRun
from jaxhpo.data.config import DataConfig
from jaxhpo.population.config import ExecutionConfig, prepare_backend
from jaxhpo.schedules.config import ScheduleConfig

HERE = Path(__file__).parent
BUDGETS = (200, 400, 800)
SHARES = (0.05, 0.1, 0.2)
SHAPES = ("linear", "1-sqrt", "cosine")
SEEDS = 5
PEAK = 3e-3
T_95 = 2.776
"""Student's t for four degrees of freedom, two-sided 95%."""

CONTEXT = 5
SEEN, CERTAIN = 8, 0.95
"""A held-out byte is nearly deterministic where the five bytes before it came at least SEEN times
in the training part and one byte followed in at least CERTAIN of them."""


@dataclass(frozen=True)
class Row:
    """A run: from `parent` (None: from scratch) at step `start` to `end`, with a point."""

    name: str
    start: int
    end: int
    point: dict[str, Any]
    parent: str | None = None


def course(start: float, length: float, shape: str = "linear") -> dict[str, Any]:
    """A point whose rate is at the peak until `start` and then falls to the floor."""
    return {
        "schedule.decay_start": float(start),
        "schedule.decay_steps": float(length),
        "schedule.decay_shape": shape,
    }


def design(budgets: tuple[int, ...], warmup: int) -> list[Row]:
    """All runs of one seed."""
    small, middle, large = budgets
    cosine = lambda end: course(warmup, end - warmup, "cosine")
    rows = [Row(f"cosine {b}", 0, b, cosine(b)) for b in budgets]
    equal = round(large * large / sum(budgets))
    rows.append(Row("cosine equal", 0, equal, cosine(equal)))
    begins = {b: {share: b - round(b * share) for share in SHARES} for b in budgets}
    rows.append(Row("trunk", 0, large, course(10 * large, 1)))
    double = {"schedule.peak_lr": 2 * PEAK}
    rows += [Row(f"cosine {b} 2x", 0, b, {**cosine(b), **double}) for b in budgets]
    rows.append(Row("trunk 2x", 0, begins[large][0.1], {**course(10 * large, 1), **double}))
    for b in budgets:
        point = {**course(begins[b][0.1], b - begins[b][0.1]), **double}
        rows.append(Row(f"wsd {b} 2x", begins[b][0.1], b, point, "trunk 2x"))
    for b in budgets:
        for share, begin in begins[b].items():
            for shape in SHAPES if share == 0.1 else SHAPES[:1]:
                point = course(begin, b - begin, shape)
                rows.append(Row(f"wsd {b} {share:.0%} {shape}", begin, b, point, "trunk"))
    last = large - round(0.1 * small) - round(0.1 * middle)
    point = course(last - round(0.1 * last), round(0.1 * last))
    rows.append(Row("wsd equal", last - round(0.1 * last), last, point, "trunk"))
    cycles = list(zip((0, *budgets), budgets, strict=False))
    for kind in ("wsd-s", "cyclic cosine"):
        parent = None
        for begin, end in cycles:
            length = round(0.1 * (end - begin)) if kind == "wsd-s" else end - max(begin, warmup)
            point = course(end - length, length, "linear" if kind == "wsd-s" else "cosine")
            rows.append(Row(f"{kind} {end}", begin, end, point, parent))
            parent = f"{kind} {end}"
    ends = {"cosine": f"cosine {middle}", "wsd": f"wsd {middle} 10% linear"}
    for kind, parent in ends.items():
        length = round(0.1 * (large - middle))
        point = course(large - length, length)
        rows.append(Row(f"on from {kind}", middle, large, point, parent))
    return rows


def train(config: TrainRun, rows: list[Row], seeds: int) -> dict[str, Any]:
    """Held-out losses by run: {"all", "certain", "uncertain"} -> one for each seed."""
    from jaxhpo.data.corpus import open_corpus
    from jaxhpo.population.rows import make_rows
    from jaxhpo.study.setup import prepare

    setup = prepare(config)
    group = setup.groups.opened[()]
    count = len(rows) * seeds
    engine = setup.opening.engine(setup.config, count)
    streams = [open_corpus(config.data, config.model.context, seed).train for seed in range(seeds)]
    masks = split(setup.corpus)
    places = {row.name: place for place, row in enumerate(rows)}
    lower = group.lower([row.point for _ in range(seeds) for row in rows])
    each = lambda values: [seed * len(rows) + v for seed in range(seeds) for v in values]
    stops = sorted({0, *(r.start for r in rows), *(r.end for r in rows)})
    longest = max(b - a for a, b in itertools.pairwise(stops))
    base = dict(
        seeds=[seed for seed in range(seeds) for _ in rows],
        streams=[seed for seed in range(seeds) for _ in rows],
    )
    population, found, made = None, {}, 0
    for begin, end in itertools.pairwise(stops):
        born = [row.start == begin for row in rows]
        parents = [
            places[row.parent] if new and row.parent else place
            for place, (row, new) in enumerate(zip(rows, born, strict=True))
        ]
        active = [row.start <= begin < row.end for row in rows]
        host = make_rows(
            lower,
            **base,
            steps=[(end - begin) * on for _ in range(seeds) for on in active],
            parents=each(parents),
            newborn=[
                n and r.parent is None
                for _ in range(seeds)
                for n, r in zip(born, rows, strict=True)
            ],
        )
        population = engine.empty(host) if population is None else population
        if any(born):
            population = engine.assemble(population, host)
        parts = [stream.batch_at(begin, end - begin)["tokens"] for stream in streams]
        whole = np.zeros((seeds, longest, *parts[0].shape[1:]), np.int32)
        whole[:, : end - begin] = np.stack(parts)
        population, _ = engine.train(population, host, {"tokens": whole})
        made += (end - begin) * sum(active) * seeds
        ended = [row for row in rows if row.end == end]
        if ended:
            losses = measured(engine, population, host, setup.corpus.held_out["tokens"], masks)
            for row in ended:
                at = [seed * len(rows) + places[row.name] for seed in range(seeds)]
                found[row.name] = {k: [float(v[i]) for i in at] for k, v in losses.items()}
        print(f"step {end}: {sum(active) * seeds} members", flush=True)
    shares = {name: float(mask.mean()) for name, mask in masks.items()}
    return {"losses": found, "member_steps": made, "token_shares": shares}


def measured(engine: Any, population: Any, rows: Any, tokens: Any, masks: Any) -> dict[str, Any]:
    """Mean held-out loss f64[P] over the tokens of each mask; idle rows too."""
    rows = replace(rows, steps=np.ones_like(rows.steps))
    found = {}
    for name, mask in masks.items():
        losses = np.asarray(engine.evaluate(population, rows, {"tokens": tokens, "mask": mask}))
        weights = mask.sum((1, 2))
        found[name] = losses[: len(rows.seeds)].astype(np.float64) @ weights / weights.sum()
    return found


def split(corpus: Any) -> dict[str, np.ndarray]:
    """Masks f32[E, B, T] of the held-out targets: all, nearly deterministic, and the others."""
    stream = np.asarray(corpus.train.stream).astype(np.uint64)
    key = lambda window: sum(window[i] << np.uint64(9 * i) for i in range(CONTEXT))
    before = key([stream[i : len(stream) - CONTEXT + i] for i in range(CONTEXT)])
    pairs = before * np.uint64(512) + stream[CONTEXT:]
    contexts, seen = np.unique(before, return_counts=True)
    both, together = np.unique(pairs, return_counts=True)
    owner = np.searchsorted(contexts, both // np.uint64(512))
    most = np.zeros(len(contexts), np.int64)
    np.maximum.at(most, owner, together)
    tokens = corpus.held_out["tokens"].astype(np.uint64)
    length = tokens.shape[-1] - CONTEXT
    window = key([tokens[..., i : i + length] for i in range(CONTEXT)])
    at = np.minimum(np.searchsorted(contexts, window), len(contexts) - 1)
    known = (contexts[at] == window) & (seen[at] >= SEEN)
    certain = known & (most[at] >= CERTAIN * seen[at])
    whole = np.zeros((*tokens.shape[:-1], tokens.shape[-1] - 1), bool)
    whole[..., CONTEXT - 1 :] = certain
    every = np.ones(whole.shape, np.float32)
    rest = every.copy()
    rest[whole] = 0
    rest[..., : CONTEXT - 1] = 0  # their five bytes are not all there
    return {"all": every, "certain": whole.astype(np.float32), "uncertain": rest}


def interval(values: Iterable[float]) -> dict[str, float]:
    """Mean and half-width of its 95% interval."""
    array = np.asarray(list(values))
    half = T_95 * array.std(ddof=1) / np.sqrt(len(array))
    return {"mean": float(array.mean()), "half_width": float(half)}


def compared(found: dict[str, Any], budgets: tuple[int, ...]) -> dict[str, Any]:
    """Differences, paired by seed, with their intervals; negative: the first is better."""
    losses = found["losses"]

    def minus(a: str, b: str, kind: str = "all") -> dict[str, float]:
        return interval(np.subtract(losses[a][kind], losses[b][kind]))

    large = budgets[-1]
    table = {}
    for b in budgets:
        for name in [f"wsd {b} {s:.0%} linear" for s in SHARES] + [
            *(f"wsd {b} 10% {shape}" for shape in SHAPES[1:]),
            f"wsd-s {b}",
            f"cyclic cosine {b}",
            f"cosine {b} 2x",
        ]:
            table[f"{name} - cosine {b}"] = minus(name, f"cosine {b}")
        table[f"wsd {b} 2x - cosine {b} 2x"] = minus(f"wsd {b} 2x", f"cosine {b} 2x")
        table[f"wsd-s {b} - wsd {b} 10% linear"] = minus(f"wsd-s {b}", f"wsd {b} 10% linear")
    table["equal total: wsd - wsd-s"] = minus("wsd equal", f"wsd-s {large}")
    table["equal total: cosine - wsd-s"] = minus("cosine equal", f"wsd-s {large}")
    table["equal total: cyclic cosine - wsd-s"] = minus(f"cyclic cosine {large}", f"wsd-s {large}")
    table["on from cosine - on from wsd"] = minus("on from cosine", "on from wsd")
    table[f"on from wsd - wsd {large} 10% linear"] = minus("on from wsd", f"wsd {large} 10% linear")
    return table


def decay_gains(found: dict[str, Any], trunk: str, decayed: str) -> dict[str, Any]:
    """What a decay takes off the loss, against as many steps without, by kind of token."""
    losses = found["losses"]
    return {
        kind: interval(np.subtract(losses[decayed][kind], losses[trunk][kind]))
        for kind in ("all", "certain", "uncertain")
    }


def totals(budgets: tuple[int, ...]) -> dict[str, int]:
    """Steps that each way spends on models at all budgets."""
    large = budgets[-1]
    decays = [round(0.1 * b) for b in budgets]
    return {
        "cosine": sum(budgets),
        "wsd": large - decays[-1] + sum(decays),
        "wsd-s": large,
        "cyclic cosine": large,
    }


def draw(result: dict[str, Any], path: Path) -> None:
    """Losses at each budget, beside what a decay takes off each kind of token."""
    from jaxhpo.report import canvas

    budgets = result["budgets"]
    losses = result["losses"]
    figure, (left, right) = canvas.sheet(3.6, 1, 2, width_ratios=(1.4, 1))
    ways = {
        "cosine, one run each": ([f"cosine {b}" for b in budgets], canvas.INK),
        "WSD, 10% linear": ([f"wsd {b} 10% linear" for b in budgets], canvas.VERMILLION),
        "WSD-S": ([f"wsd-s {b}" for b in budgets], canvas.BLUE),
        "cyclic cosine": ([f"cyclic cosine {b}" for b in budgets], canvas.GREEN),
    }
    for number, (label, (names, colour)) in enumerate(ways.items()):
        marks = [
            interval(np.subtract(losses[n]["all"], losses[f"cosine {b}"]["all"]))
            for n, b in zip(names, budgets, strict=True)
        ]
        x = np.arange(len(budgets)) + 0.12 * (number - 1.5)
        left.errorbar(x, [m["mean"] for m in marks], [m["half_width"] for m in marks],
                      fmt="o", color=colour, capsize=3, label=label)  # fmt: skip
    left.set_xticks(range(len(budgets)), [f"{b} steps" for b in budgets])
    left.set_ylabel("held-out loss minus cosine's (nats)")
    left.axhline(0, lw=0.8, color=canvas.MUTED)
    left.set_title("the same budget, paired by seed")
    kinds = ("all", "certain", "uncertain")
    for number, share in enumerate(SHARES):
        gains = result["decay_gains"][f"{share:.0%}"]
        x = np.arange(3) + 0.2 * (number - 1)
        right.bar(x, [gains[k]["mean"] for k in kinds], 0.18,
                  yerr=[gains[k]["half_width"] for k in kinds], capsize=2,
                  color=(canvas.SKY, canvas.BLUE, canvas.INK)[number],
                  label=f"decay {share:.0%}")  # fmt: skip
    names = ("all tokens", "nearly\ndeterministic", "the others")
    right.set_xticks(range(3), names)
    right.set_title(f"what a decay takes off, at {budgets[-1]} steps")
    right.axhline(0, lw=0.8, color=canvas.MUTED)
    right.set_ylim(1.35 * min(right.get_ylim()), None)
    right.legend(loc="lower left")
    figure.legend(handles=left.get_legend_handles_labels()[0], loc="outside upper left", ncols=4)
    path.write_bytes(canvas.png(figure))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tiny", action="store_true", help="a tenth of the steps, two seeds")
    parser.add_argument("--out", type=Path, default=HERE, help="where result and figure go")
    asked = parser.parse_args()
    budgets = tuple(b // 4 for b in BUDGETS) if asked.tiny else BUDGETS
    seeds, warmup = (2, 5) if asked.tiny else (SEEDS, 20)
    config = TrainRun(
        steps=budgets[-1],
        schedule=ScheduleConfig(peak_lr=PEAK, warmup_steps=warmup, floor=0.1),
        data=DataConfig(eval_batches=8 if asked.tiny else 48),
        execution=ExecutionConfig(devices=2),
    )
    rows = design(budgets, warmup)
    prepare_backend(config.execution, len(rows) * seeds)
    from jaxhpo.population.cache import use_compilation_cache

    use_compilation_cache(config.execution)
    begun = time.perf_counter()
    found = train(config, rows, seeds)
    large = budgets[-1]
    gains = {}
    for share in SHARES:
        gains[f"{share:.0%}"] = decay_gains(found, "trunk", f"wsd {large} {share:.0%} linear")
    result = {
        "budgets": list(budgets),
        "tokens_per_step": config.data.batch_size * config.model.context,
        "seeds": seeds,
        "peak_lr": config.schedule.peak_lr,
        "floor": config.schedule.floor,
        "warmup_steps": warmup,
        "total_steps": totals(budgets),
        "seconds": time.perf_counter() - begun,
        **found,
        "differences": compared(found, budgets),
        "decay_gains": gains,
    }
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    import matplotlib

    from jaxhpo.report import canvas

    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **canvas.RC}):
        draw(result, asked.out / "figure.png")
    for name, row in result["differences"].items():
        print(f"{name:<45} {row['mean']:+.4f} ± {row['half_width']:.4f}")


if __name__ == "__main__":
    main()
