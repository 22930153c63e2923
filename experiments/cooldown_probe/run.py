"""Does ranking on a cool-down probe find better models than ranking on the raw loss?

    python experiments/cooldown_probe/run.py            # 15 searches: about 12 minutes on two cores
    python experiments/cooldown_probe/run.py --tiny     # everything once, in a minute
    python experiments/cooldown_probe/run.py --draw     # the table and the figure from results.json

The default job (`jaxhpo pbt`) under the same number of member-steps, those of the probes counted,
and the same final anneal:

- probe: ten selections, one every 50 steps, each on a copy cooled down for 10 steps;
- raw: ten selections, one every 60 steps, on the loss as it is (the probes' steps are trained);
- raw-often: a selection every 50 steps, twelve in all.

The arms of one seed share initial points, weights and order of the data. What is compared is the
annealed final model that each run names its best, on held-out windows that no selection has seen.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

import jaxhpo

sys.path.append(str(Path(__file__).parents[1]))
from measuring import bigram, fresh_loss, paired

HERE = Path(__file__).parent
SEEDS = (0, 1, 2, 3, 4)
ANNEAL, PROBE, SELECTIONS, INTERVAL = 120, 10, 10, 50


def arms(scale: int) -> dict[str, jaxhpo.PbtRun]:
    """The configs compared; every length is divided by `scale`."""
    anneal, probe, interval = ANNEAL // scale, max(1, PROBE // scale), INTERVAL // scale
    total = (SELECTIONS + 1) * interval + anneal + SELECTIONS * probe

    def run(steps: int, fitness: str, interval: int) -> jaxhpo.PbtRun:
        pbt = jaxhpo.PbtConfig(
            interval=interval, fitness=fitness, probe_share=probe / interval, beside=False
        )
        schedule = jaxhpo.ScheduleConfig(
            warmup_steps=50 // scale, decay_start=steps - anneal, decay_steps=anneal
        )
        return jaxhpo.PbtRun(steps=steps, schedule=schedule, pbt=pbt)

    return {
        "probe": run(total - SELECTIONS * probe, "probe", interval),
        "raw": run(total, "loss", interval + probe),
        "raw-often": run(total, "loss", interval),
    }


def search(config: jaxhpo.PbtRun, seed: int, folder: Path) -> dict:
    """One search: its selections, member-steps, and the annealed losses it ends with."""
    from dataclasses import replace

    from jaxhpo.record.history import history

    quiet = jaxhpo.TrackerConfig(console="off")
    outcome = jaxhpo.pbt(replace(config, seed=seed, out=str(folder), tracker=quiet))
    past = history(folder)
    last = [result["loss"] for result in past.reports[-1]["results"]]
    curves = [
        (plan["assignments"], report["results"])
        for plan, report in zip(past.plans, past.reports, strict=True)
    ]
    return {
        "selections": sum(
            any(row["parent"] and row["parent"]["trial"] != row["trial"] for row in rows)
            for rows, _ in curves
        ),
        "member_steps": past.finish["member_steps"],
        "probe_steps": past.finish["probe_steps"],
        "seconds": past.finish["wall_seconds"],
        "best_in_run": outcome.best["loss"],
        "median_in_run": statistics.median(last),
        "median_peak_lr": statistics.median(
            row["point"]["schedule.peak_lr"] for row in curves[-1][0]
        ),
    }


def measure(tiny: bool) -> dict:
    configs = arms(5 if tiny else 1)
    seeds = SEEDS[:2] if tiny else SEEDS
    found: dict[str, list[dict]] = {name: [] for name in configs}
    with tempfile.TemporaryDirectory() as place:
        for seed in seeds:
            for name, config in configs.items():
                folder = Path(place) / f"{name}-{seed}"
                row = {"seed": seed, **search(config, seed, folder)}
                row["annealed"] = fresh_loss(config, folder, 8 if tiny else 128)
                found[name].append(row)
                print(name, json.dumps(row), flush=True)
    return {"bigram": bigram(next(iter(configs.values()))), "arms": found}


def table(found: dict) -> str:
    rows = ["| arm | annealed best, nats | median of the population | selections | seconds |"]
    rows.append("|---|---|---|---|---|")
    mean = lambda runs, name: statistics.mean(run[name] for run in runs)
    for name, runs in found["arms"].items():
        rows.append(
            f"| {name} | {mean(runs, 'annealed'):.4f} | {mean(runs, 'median_in_run'):.4f} | "
            f"{mean(runs, 'selections'):.1f} | {mean(runs, 'seconds'):.0f} |"
        )
    for other in ("raw", "raw-often"):
        for key, text in (("annealed", "best"), ("median_in_run", "median")):
            sides = [[run[key] for run in found["arms"][name]] for name in ("probe", other)]
            gap, half = paired(*sides)
            rows.append(
                f"\nprobe minus {other}, {text}: {gap:+.4f} ± {half:.4f} nats (95%, "
                f"{len(sides[0])} pairs): {'resolved' if abs(gap) > half else 'not resolved'}"
            )
    return "\n".join([*rows, f"\nbyte bigram: {found['bigram']:.4f} nats"])


def draw(found: dict, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
    names = list(found["arms"])
    for axis, key, title in (
        (axes[0], "annealed", "best model of each run, fresh held-out text"),
        (axes[1], "median_in_run", "median of the population"),
    ):
        for pair in zip(*found["arms"].values(), strict=True):
            axis.plot(names, [run[key] for run in pair], "o-", color="0.6", lw=1, ms=4)
        means = [statistics.mean(run[key] for run in found["arms"][name]) for name in names]
        axis.plot(names, means, "_", color="C3", ms=28, mew=2.5, label="mean")
        axis.set_title(title, fontsize=10)
        axis.set_ylabel("held-out loss after the anneal, nats")
        axis.margins(x=0.2)
        axis.legend(frameon=False)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="short runs, two seeds, nothing kept")
    parser.add_argument("--draw", action="store_true", help="only draw what results.json holds")
    args = parser.parse_args()
    results = HERE / "results.json"
    found = json.loads(results.read_text()) if args.draw else measure(args.tiny)
    if not args.tiny:
        results.write_text(json.dumps(found, indent=1) + "\n")
        draw(found, HERE / "probe-against-raw.png")
    print(table(found))


if __name__ == "__main__":
    main()
