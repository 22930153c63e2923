"""Nine searches at equal member-steps on the default corpus.

    python experiments/searches/run.py            # 50 searches: about 25 minutes on two cores
    python experiments/searches/run.py --tiny     # everything once, in a few minutes
    python experiments/searches/run.py --draw     # the table and the figure from results.json

Every search may train 3,213 member-steps (probes counted) of the default model, which is one pass
of Hyperband over trials of 243 steps; each of the others has as many trials as fit into that. All
trials share a schedule that is defined over 243 steps (warm-up, stable, linear decay over the last
fifth). Ranking is on the raw loss, but for pbt-probe, where it is on a cool-down probe.

`best so far` is the lowest held-out loss reported up to then; what is compared at the end is the
best model's loss on held-out text that no search has seen.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jaxhpo

sys.path.append(str(Path(__file__).parents[1]))
from measuring import bigram, fresh_loss, paired, scheduler_of

HERE = Path(__file__).parent
SEEDS = (0, 1, 2, 3, 4)
STEPS, LOWEST, ETA, BUDGET = 243, 9, 3, 3213
INTERVAL = 20
METHODS = ("random", "sobol", "halving", "asha", "hyperband", "tpe", "two-stage", "bohb")


def base(seed: int, scale: int) -> jaxhpo.SearchRun:
    return jaxhpo.SearchRun(
        steps=STEPS // scale,
        seed=seed,
        schedule=jaxhpo.ScheduleConfig(warmup_steps=20 // scale),
        tracker=jaxhpo.TrackerConfig(console="off"),
        checkpoint=jaxhpo.CheckpointConfig(every_seconds=3600),
    )


def configs(seed: int, scale: int) -> dict[str, jaxhpo.SearchRun]:
    """The searches compared; lengths and the budget are divided by `scale`."""
    start, budget = base(seed, scale), BUDGET // scale
    halving = jaxhpo.SearchConfig(min_steps=LOWEST // scale or 1, eta=ETA, rank="loss")

    def search(name: str) -> jaxhpo.SearchRun:
        make = lambda trials: replace(start, search=replace(halving, scheduler=name, trials=trials))
        return make(most(make, budget, least=6, up_to=400))

    def pbt(fitness: str) -> jaxhpo.SearchRun:
        tuned = jaxhpo.PbtConfig(
            interval=INTERVAL // scale, fitness=fitness, beside=False, members=8
        )
        make = lambda members: replace(
            start,
            search=replace(halving, scheduler="pbt"),
            pbt=replace(tuned, members=members),
        )
        return make(most(make, budget, least=2, up_to=40))

    named = {name: search(name) for name in METHODS}
    return {**named, "pbt": pbt("loss"), "pbt-probe": pbt("probe")}


def most(make: Callable[[int], jaxhpo.SearchRun], budget: int, least: int, up_to: int) -> int:
    """The largest number of trials whose search stays within the budget of member-steps.

    What ASHA spends depends on the losses: its cost is that under losses drawn at random.
    """

    def cost(trials: int) -> int:
        config = make(trials)
        if config.search.scheduler == "asha":
            return drawn_cost(scheduler_of(config))
        extent = scheduler_of(config).extent
        return extent.trained + extent.probed

    low, high = least, up_to
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if cost(middle) <= budget else (low, middle - 1)
    return low


def drawn_cost(scheduler) -> int:
    """Member-steps of a search whose every loss is a draw from the same distribution."""
    import numpy as np

    from jaxhpo.search.plan import Result

    rng = np.random.default_rng(0)
    total, reached, plan = 0, {}, scheduler.first()
    while plan is not None:
        results = []
        for row in plan.assignments:
            start = reached.get(row.parent.trial, 0) if row.parent else 0
            reached[row.trial] = start + row.steps
            total += row.steps
            loss = float(rng.random())
            results.append(Result(row.trial, reached[row.trial], loss, loss, (loss,)))
        plan = scheduler.next(tuple(results))
    return total


def run(name: str, config: jaxhpo.SearchRun, folder: Path, batches: int) -> dict:
    """One search: its curve of best losses, and its best model's loss on fresh text."""
    from jaxhpo.record.history import history

    outcome = jaxhpo.run_search(replace(config, out=str(folder)))
    past = history(folder)
    curve, best, steps, seconds = [], float("inf"), 0, 0.0
    for plan, report in zip(past.plans, past.reports, strict=True):
        steps += sum(row["steps"] + row["probe"] for row in plan["assignments"])
        seconds += report["seconds"]
        finite = [r["loss"] for r in report["results"] if r["loss"] == r["loss"]]
        best = min([best, *finite])
        curve.append([steps, seconds, best])
    trials = {row["trial"] for plan in past.plans for row in plan["assignments"]}
    return {
        "method": name,
        "seed": config.seed,
        "trials": len(trials),
        "member_steps": steps,
        "seconds": seconds,
        "wall_seconds": past.finish["wall_seconds"],
        "best_in_run": outcome.best["loss"],
        "fresh": fresh_loss(config, folder, batches),
        "curve": curve,
    }


def measure(tiny: bool) -> dict:
    scale, seeds = (3, SEEDS[:2]) if tiny else (1, SEEDS)
    rows = []
    with tempfile.TemporaryDirectory() as place:
        for seed in seeds:
            for name, config in configs(seed, scale).items():
                folder = Path(place) / f"{name}-{seed}"
                rows.append(run(name, config, folder, 8 if tiny else 128))
                shown = {k: v for k, v in rows[-1].items() if k != "curve"}
                print(json.dumps(shown), flush=True)
    return {"bigram": bigram(base(0, 1)), "runs": rows}


def by_method(found: dict) -> dict[str, list[dict]]:
    groups: dict[str, list[dict]] = {}
    for row in found["runs"]:
        groups.setdefault(row["method"], []).append(row)
    return groups


def table(found: dict) -> str:
    groups = by_method(found)
    against = [row["fresh"] for row in groups["random"]]
    lines = [
        "| search | trials | member-steps | seconds | best, fresh text | minus random (95%) | |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, rows in groups.items():
        mean = lambda key, rows=rows: statistics.mean(row[key] for row in rows)
        gap, half = paired([row["fresh"] for row in rows], against)
        verdict = "" if name == "random" else "resolved" if abs(gap) > half else "not resolved"
        shown = "" if name == "random" else f"{gap:+.4f} ± {half:.4f}"
        lines.append(
            f"| {name} | {mean('trials'):.0f} | {mean('member_steps'):,.0f} | "
            f"{mean('seconds'):.0f} | {mean('fresh'):.4f} | {shown} | {verdict} |"
        )
    return "\n".join([*lines, f"\nbyte bigram: {found['bigram']:.4f} nats"])


def draw(found: dict, path: Path) -> None:
    import matplotlib
    import numpy as np

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained", sharey=True)
    for number, (name, rows) in enumerate(by_method(found).items()):
        for axis, column in zip(axes, (0, 1), strict=True):
            ends = [row["curve"][-1][column] for row in rows]
            grid = np.linspace(0, min(ends), 300)
            curves = [_held(row["curve"], column, grid) for row in rows]
            mean = np.mean(curves, 0)
            axis.plot(grid, mean, color=f"C{number}", lw=1.8, label=name)
    axes[0].set_xlabel("member-steps, probes counted")
    axes[1].set_xlabel("seconds of segments")
    axes[0].set_ylabel("best held-out loss so far, nats (mean of seeds)")
    axes[0].axhline(found["bigram"], color="0.5", ls=":", lw=1)
    axes[0].text(20, found["bigram"], "byte bigram", va="bottom", color="0.4", fontsize=8)
    axes[0].set_ylim(top=found["bigram"] + 0.6)
    axes[1].legend(frameon=False, ncols=2, fontsize=9)
    for axis in axes:
        axis.grid(color="0.92")
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def _held(curve: list[list[float]], column: int, grid):
    """Best loss so far on a grid of steps or seconds: what was known then, not interpolated."""
    import numpy as np

    at = np.searchsorted([row[column] for row in curve], grid, side="right") - 1
    losses = np.array([np.nan, *[row[2] for row in curve]])
    return losses[at + 1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="short runs, two seeds, nothing kept")
    parser.add_argument("--draw", action="store_true", help="only draw what results.json holds")
    args = parser.parse_args()
    results = HERE / "results.json"
    found = json.loads(results.read_text()) if args.draw else measure(args.tiny)
    if not args.tiny:
        results.write_text(json.dumps(found) + "\n")
        draw(found, HERE / "best-so-far.png")
    print(table(found))


if __name__ == "__main__":
    main()
