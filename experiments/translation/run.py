"""PBT over learning rate and dropouts of a translator, against fixed values and random search.

    python experiments/translation/run.py --data FOLDER    # three seeds: half an hour on two cores
    python experiments/translation/run.py --data FOLDER --tiny   # everything once, nothing kept
    python experiments/translation/run.py --draw           # table and figure from results.json

FOLDER is Multi30k German-English; the rest is said in multi30k.toml. Of each seed, PBT and the
same initial hyperparameters held fixed are one run; random search has as many member-steps as PBT,
its probes counted. Of each, the trial with the lowest loss on val translates test_2016_flickr.
"""

import argparse
import json
import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import jaxhpo
from jaxhpo.config import load

sys.path.append(str(Path(__file__).parents[1]))
from measuring import paired

HERE = Path(__file__).parent
SEEDS = (0, 1, 2)
PART = "test_2016_flickr"
ARMS = {"pbt": "PBT", "fixed": "fixed", "random": "random search"}
COLUMNS = (("held_out", 4), ("median_held_out", 4), ("greedy", 2), ("beam", 2))
QUIET = jaxhpo.TrackerConfig(console="off")
SELDOM = jaxhpo.CheckpointConfig(every_seconds=1e6)


def base(data: str, tiny: bool) -> jaxhpo.PbtRun:
    config = load(jaxhpo.PbtRun, HERE / "multi30k.toml")
    config = replace(
        config, data=replace(config.data, source=data), tracker=QUIET, checkpoint=SELDOM
    )
    if not tiny:
        return config
    pbt = replace(config.pbt, members=4, interval=20)
    return replace(config, steps=60, pbt=pbt, schedule=replace(config.schedule, warmup_steps=10))


def searched(config: jaxhpo.PbtRun, trials: int) -> jaxhpo.SearchRun:
    """Random search over the same space, every trial to its end."""
    names = ("steps", "seed", "model", "dropout", "loss", "schedule", "optimizer", "data", "space")
    search = jaxhpo.SearchConfig(scheduler="random", trials=trials, segment=config.pbt.interval)
    shared = {name: getattr(config, name) for name in names}
    return jaxhpo.SearchRun(**shared, search=search, tracker=QUIET, checkpoint=SELDOM)


def one_seed(config: jaxhpo.PbtRun, work: Path, most: int | None) -> dict[str, Any]:
    from jaxhpo.record.history import history

    populations, searches = work / f"pbt-{config.seed}", work / f"random-{config.seed}"
    jaxhpo.pbt(replace(config, out=str(populations), resume="auto"))
    past = history(populations)
    cost = past.finish["member_steps"] + past.finish["probe_steps"]
    fixed = config.pbt.members * config.steps
    trials = round((cost - fixed) / config.steps)
    jaxhpo.run_search(replace(searched(config, trials), out=str(searches), resume="auto"))
    other = history(searches)
    arms = {
        "pbt": arm(populations, past, "pbt", most),
        "fixed": arm(populations, past, "fixed", most),
        "random": arm(searches, other, None, most),
    }
    spent = {"pbt": cost - fixed, "fixed": fixed, "random": other.finish["member_steps"]}
    baseline = {event["name"]: event["loss"] for event in past.of("baseline")}
    return {
        "seed": config.seed,
        "bigram": baseline["bigram"],
        "parameters": past.start["parameters"],
        "seconds": {"pbt and fixed": past.finish["seconds"], "random": other.finish["seconds"]},
        "arms": {name: {"member_steps": spent[name], **found} for name, found in arms.items()},
    }


def arm(folder: Path, past: Any, group: str | None, most: int | None) -> dict[str, Any]:
    """The best trial of a group by its last held-out loss, its translations' BLEU, and the lowest
    held-out loss of the group at each report."""
    trials, points, curve, last = set(), {}, [], {}
    for plan, report in zip(past.plans, past.reports, strict=True):
        for row in plan["assignments"]:
            if group is None or row.get("group") == group:
                trials.add(row["trial"])
                points[row["trial"]] = row["point"]
        rows = [row for row in report["results"] if row["trial"] in trials]
        now = {row["trial"]: row["loss"] for row in rows if row["loss"] == row["loss"]}
        if now:
            last = now
            curve.append([max(row["step"] for row in rows), min(now.values())])
    best = min(last, key=last.__getitem__)
    found: dict[str, Any] = {
        "trial": best,
        "held_out": last[best],
        "median_held_out": statistics.median(last.values()),
        "point": points[best],
        "curve": curve,
        "line": line(past, best),
    }
    for name, beams in (("greedy", 1), ("beam", 4)):
        query = jaxhpo.TranslateQuery(part=PART, trial=best, num_beams=beams, most=most)
        translated = jaxhpo.translate(folder, query)
        found[name] = translated.bleu
        found["signature"] = translated.signature
        found["examples"] = [
            list(row)
            for row in zip(
                translated.sources[:4], translated.texts, translated.references, strict=False
            )
        ]
    return found


def line(past: Any, trial: int) -> list[list[Any]]:
    """`[step, point]` of the trial and its ancestors, from step zero on."""
    from jaxhpo.search.replay import lineage_points
    from jaxhpo.study.replayed import plan_of, report_of

    pairs = zip(past.plans, past.reports, strict=True)
    rows = lineage_points([(plan_of(p), report_of(r)) for p, r in pairs], trial)
    return [[step, dict(point)] for step, point in rows]


def measure(data: str, tiny: bool, work: Path) -> dict[str, Any]:
    config, rows = base(data, tiny), []
    for seed in SEEDS[:2] if tiny else SEEDS:
        rows.append(one_seed(replace(config, seed=seed), work, 64 if tiny else None))
        shown = {
            name: (each["held_out"], each["greedy"], each["beam"])
            for name, each in rows[-1]["arms"].items()
        }
        print(seed, rows[-1]["seconds"], shown, flush=True)
    return {"steps": config.steps, "members": config.pbt.members, "seeds": rows}


def values(found: dict, name: str, what: str) -> list[float]:
    return [row["arms"][name][what] for row in found["seeds"]]


def table(found: dict) -> str:
    rows = found["seeds"]
    lines = [
        "| | member-steps | best loss | median loss | BLEU, greedy | 4 beams | each seed |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, title in ARMS.items():
        mean = lambda what, name=name: statistics.mean(values(found, name, what))
        each = ", ".join(f"{value:.2f}" for value in values(found, name, "beam"))
        lines.append(
            f"| {title} | {mean('member_steps'):,.0f} | {mean('held_out'):.4f} | "
            f"{mean('median_held_out'):.4f} | "
            f"{mean('greedy'):.2f} | {mean('beam'):.2f} | {each} |"
        )
    lines += [
        "",
        "| PBT minus | best loss | median loss | BLEU, greedy | 4 beams |",
        "|---|---|---|---|",
    ]
    for name in ("fixed", "random"):
        cells = []
        for what, digits in COLUMNS:
            gap, half = paired(values(found, "pbt", what), values(found, name, what))
            verdict = "" if abs(gap) > half else ", not resolved"
            cells.append(f"{gap:+.{digits}f} ± {half:.{digits}f}{verdict}")
        lines.append(f"| {ARMS[name]} | {' | '.join(cells)} |")
    bigram = statistics.mean(row["bigram"] for row in rows)
    return "\n".join([*lines, "", f"bigram of the targets: {bigram:.4f} nats"])


def draw(found: dict, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 4, figsize=(15, 3.8), layout="constrained")
    colours = dict(zip(ARMS, ("C0", "0.45", "C1"), strict=True))
    for name, title in ARMS.items():
        for row in found["seeds"]:
            steps, losses = zip(*row["arms"][name]["curve"], strict=True)
            label = title if row["seed"] == 0 else None
            axes[0].plot(steps, losses, color=colours[name], lw=1.2, label=label)
    bigram = statistics.mean(row["bigram"] for row in found["seeds"])
    axes[0].axhline(bigram, color="0.6", ls=":", lw=1)
    axes[0].text(found["steps"], bigram, "bigram of the targets ", va="bottom", ha="right", size=8)
    axes[0].set(xlabel="steps", ylabel="lowest held-out loss, nats/token")
    axes[0].legend(frameon=False)
    for at, name in enumerate(ARMS):
        bleu = values(found, name, "beam")
        axes[1].plot([at] * len(bleu), bleu, "o", color=colours[name], ms=5, alpha=0.8)
        axes[1].plot([at - 0.2, at + 0.2], [statistics.mean(bleu)] * 2, color=colours[name], lw=2)
    for row in found["seeds"]:
        bleu = [row["arms"][name]["beam"] for name in ARMS]
        axes[1].plot(range(len(ARMS)), bleu, color="0.85", lw=0.8, zorder=0)
    axes[1].set(ylabel=f"BLEU on {PART}, 4 beams", xlim=(-0.5, 2.5))
    axes[1].set_xticks(range(len(ARMS)), ["PBT", "fixed", "random\nsearch"])
    for row in found["seeds"]:
        best = row["arms"]["pbt"]["line"]
        steps = [*(step for step, _ in best), found["steps"]]
        points = [*(point for _, point in best), best[-1][1]]
        look = dict(where="post", color=f"C{row['seed'] + 2}", label=f"seed {row['seed']}")
        axes[2].step(steps, [point["schedule.peak_lr"] for point in points], **look)
        rates = [[value for name, value in point.items() if "dropout" in name] for point in points]
        axes[3].step(steps, [statistics.mean(each) for each in rates], **look)
    axes[2].set(xlabel="steps", ylabel="peak learning rate of PBT's best line", ylim=(0, None))
    axes[3].set(xlabel="steps", ylabel="mean of its three dropouts", ylim=(0, None))
    axes[2].legend(frameon=False)
    for axis in axes:
        axis.grid(color="0.93")
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder of Multi30k")
    parser.add_argument("--work", help="folder for the runs: what is there is carried on")
    parser.add_argument("--tiny", action="store_true", help="short runs, two seeds, nothing kept")
    parser.add_argument("--draw", action="store_true", help="only draw what results.json holds")
    args = parser.parse_args()
    results = HERE / "results.json"
    if args.draw:
        found = json.loads(results.read_text())
    elif args.data is None:
        raise SystemExit("give --data FOLDER")
    else:
        with tempfile.TemporaryDirectory() as place:
            found = measure(args.data, args.tiny, Path(args.work or place))
    if not args.tiny:
        results.write_text(json.dumps(found) + "\n")
        draw(found, HERE / "figure.png")
    print(table(found))


if __name__ == "__main__":
    main()
