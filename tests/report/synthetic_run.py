"""A believable event log without training anything: PBT beside fixed members on a made-up loss."""

import math

import numpy as np

SPACE = {
    "schedule.peak_lr": "log(1e-4, 1e-1)",
    "optimizer.weight_decay": "log(1e-3, 1)",
    "optimizer.beta2": "uniform(0.9, 0.999)",
    "dropout.residual": "uniform(0, 0.3)",
}
CONFIG = {
    "steps": 600,
    "seed": 0,
    "model": {"num_layers": 2, "d_model": 64, "num_heads": 4, "context": 64},
    "optimizer": {"kind": "adamw", "clip_norm": 1.0},
    "data": {"source": "python", "tokenizer": "bytes", "batch_size": 8},
    "pbt": {"interval": 50, "exploit": "truncation"},
}
ENVIRONMENT = {
    "python": "3.11.9",
    "jax": "0.10.2",
    "jaxlib": "0.10.2",
    "platform": "cpu",
    "device_kind": "cpu",
    "devices": 2,
    "cpu": "a <made-up> processor",
}


def events(
    members=8,
    fixed=8,
    rounds=12,
    interval=50,
    space=SPACE,
    broken=(2, 13),
    finish=True,
    probe=10,
    seed=0,
):
    """(kind, fields) of a whole run. `broken`: trials that turn NaN in round 4."""
    rng = np.random.default_rng(seed)
    yield "start", _start(members + fixed, space)
    yield "baseline", {"name": "bigram", "loss": 2.42, "bits_per_byte": 2.42 / math.log(2)}
    for program, seconds in (("train", 9.5), ("evaluate", 2.1), ("assemble", 0.7)):
        yield "compile", {"program": program, "seconds": seconds}
    rows = _first(rng, members, fixed, space, interval, probe)
    states = {row["trial"]: (5.6, 0) for row in rows}
    fresh, losses = members + fixed, {}
    for index in range(rounds):
        yield "plan", {"index": index, "assignments": rows}
        report, states = _report(rng, index, rows, states, rounds * interval, interval, broken)
        yield "report", report
        yield "saving", {"index": index}
        save = {"directory": f"checkpoints/{index}", "bytes": 4_200_000, "seconds": 0.2}
        yield "checkpoint", {"index": index, **save, "digest": "0f" * 16}
        losses = {row["trial"]: row["loss"] for row in report["results"]}
        rows, fresh = _next(rng, rows, losses, fresh, space)
    if finish and rounds:
        yield from _finish(report["results"], rows)


def write(run_dir, pairs):
    """The same events through the record room's own writer; gives the run directory."""
    from jaxhpo.record.log import EventLog

    run_dir.mkdir(parents=True, exist_ok=True)
    log = EventLog(run_dir / "events.jsonl")
    for kind, fields in pairs:
        log.append(kind, **fields)
    log.close()
    return run_dir


def _start(members, space):
    return {
        "version": "0.1.0",
        "command": "jaxhpo pbt --members 8",
        "config": CONFIG,
        "space": dict(space),
        "fingerprints": {"data": "sha256:2f9c6b1e", "heldout": "sha256:77aa0d13"},
        "environment": ENVIRONMENT,
        "members": members,
        "parameters": 107_904,
        "bytes_per_token": 1.0,
        "tokens_per_step": 512,
    }


def _draw(rng, distribution):
    kind, rest = distribution.split("(")
    arguments = [x.strip() for x in rest.rstrip(")").split(",")]
    if kind == "choice":
        return str(rng.choice(arguments))
    low, high = map(float, arguments)
    return float(
        math.exp(rng.uniform(math.log(low), math.log(high)))
        if kind == "log"
        else rng.uniform(low, high)
    )


def _first(rng, members, fixed, space, interval, probe):
    points = [
        {name: _draw(rng, dist) for name, dist in space.items()} for _ in range(max(members, fixed))
    ]
    groups = [("pbt" if members > 1 else "", points[:members]), ("fixed", points[:fixed])]
    rows = []
    for group, chosen in groups:
        for point in chosen:
            rows.append(
                {
                    "trial": len(rows),
                    "point": point,
                    "parent": None,
                    "steps": interval,
                    "seed": len(rows),
                    "keep": ["params", "moments", "step"],
                    "probe": probe,
                    "group": group,
                }
            )
    return rows


def _report(rng, index, rows, states, total, interval, broken):
    results, curves, after = [], {}, {}
    for row in rows:
        loss, step = states[row["trial"] if row["trial"] in states else row["parent"]["trial"]]
        steps = [step + i for i in range(5, interval + 1, 5)]
        peak = row["point"].get("schedule.peak_lr", 0.003)
        rates = [peak * min(1, s / 50, max(0.1, (total - s) / 150)) for s in steps]
        miss = abs(math.log10(rates[-1] / 4e-3)) + 0.5 * row["point"].get("dropout.residual", 0.0)
        goal = 1.62 + 1.5 * min(miss, 1.6) ** 1.3
        end = (
            goal + (loss - goal) * math.exp(-interval / 150) if goal < loss else loss - 0.01 * miss
        )
        dead = (row["trial"] in broken and index >= 4) or not math.isfinite(loss)
        end = math.nan if dead else end + 0.015 * float(rng.standard_normal())
        score = end - 0.08 if row["probe"] else end
        result = {"trial": row["trial"], "step": step + interval, "loss": end, "score": score}
        results.append({**result, "samples": [score + 0.02 * k for k in (-1, 0, 1)]})
        fade = [loss + (end - loss) * i / len(steps) for i in range(len(steps))]
        norms = [
            0.6 * math.exp(0.4 * float(rng.standard_normal())) * max(f - 1.2, 0.1) for f in fade
        ]
        curves[str(row["trial"])] = {"step": steps, "loss": fade, "lr": rates, "grad_norm": norms}
        after[row["trial"]] = (end, step + interval)
    seconds = 6.2 + 0.5 * float(rng.random())
    report = {"index": index, "results": results, "curves": curves, "seconds": seconds}
    tokens = 512 * interval * len(rows)
    return {**report, "tokens": tokens, "step_seconds": seconds / (interval * len(rows))}, after


def _next(rng, rows, losses, fresh, space):
    """Truncation: the worst quarter of the tuned group copies one of the best."""
    tuned = [row["trial"] for row in rows if row["group"] == "pbt"]
    order = sorted(tuned, key=lambda trial: (math.isnan(losses[trial]), losses[trial]))
    quarter = len(order) // 4
    winners, losers = order[:quarter], set(order[len(order) - quarter :])
    points = {row["trial"]: row["point"] for row in rows}
    rows_after = []
    for row in rows:
        if row["trial"] in losers:
            source = int(rng.choice(winners))
            moved = {name: _moved(rng, points[source][name], dist) for name, dist in space.items()}
            change = {
                "trial": fresh,
                "seed": fresh,
                "point": moved,
                "parent": {"trial": source, "step": None},
            }
            rows_after.append({**row, **change})
            fresh += 1
        else:
            rows_after.append({**row, "parent": {"trial": row["trial"], "step": None}})
    return rows_after, fresh


def _moved(rng, value, distribution):
    if isinstance(value, str):
        return value
    low, high = map(float, distribution.split("(")[1].rstrip(")").split(","))
    return float(np.clip(value * rng.choice([0.8, 1.25]), low, high))


def _finish(results, rows):
    groups = {}
    group_of = {row["trial"]: row["group"] for row in rows}
    for result in results:
        name = group_of.get(result["trial"], "pbt")
        groups.setdefault(name, []).append(
            result["loss"] if math.isfinite(result["loss"]) else 99.0
        )
    best = min((r for r in results if math.isfinite(r["loss"])), key=lambda r: r["loss"])
    text = 'def parse(self, name):\n    """<script>alert(1)</script>"""\n    return name & 1\n'
    yield "sample", {"trial": best["trial"], "prompt": "def ", "text": text, "temperature": 0.8}
    verdict = {"trial": best["trial"], "step": best["step"], "loss": best["loss"]}
    sums = {k: {"best": min(v), "median": float(np.median(v))} for k, v in groups.items() if k}
    bits = best["loss"] / math.log(2)
    yield (
        "finish",
        {
            "best": {**verdict, "bits_per_byte": bits},
            "groups": sums,
            "seconds": 78.0,
            "wall_seconds": 104.0,
            "useful": 50 / 60,
        },
    )
