"""`jaxhpo report RUN`: draw the figures of a run and write its page, finished or not."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxhpo.cli.positional import run_directory


def main(argv: Sequence[str]) -> int:
    words = [word for word in argv if word != "--json"]
    run = run_directory(words, "report", f"{__doc__}\n\n  --json  print the numbers as JSON")
    from jaxhpo.report.page import write_report

    page = write_report(run)
    if len(words) < len(argv):
        print(json.dumps({"run": str(run), "report": str(page), **plain(summary_of(run))}))
    else:
        show(run, page)
    return 0


def summary_of(run: Path) -> Mapping[str, Any]:
    """What a run came to, from its log."""
    from jaxhpo.record.directory import RunDirectory
    from jaxhpo.record.history import history
    from jaxhpo.report.summary import summarise

    return summarise(history(RunDirectory.open(run).log))


def plain(value: Any) -> Any:
    """The same with null for numbers that JSON has none for."""
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def show(run: Path, page: Path) -> None:
    """Prints what a run found, and where its page is."""
    from jaxhpo.record.directory import RunDirectory
    from jaxhpo.record.history import history

    past = history(RunDirectory.open(run).log)
    if past.fork is not None:
        from jaxhpo.cli.fork import account

        print(account(past))
    else:
        print(table(summary_of(run)))
    print(f"\nrun     {run}\nreport  {page}")


def table(summary: Mapping[str, Any]) -> str:
    """The outcome of a run in a few aligned lines: losses in nats per token, or what the task has,
    and bits per byte; and the metrics of the best member."""
    rows = [("", "held-out loss", "bits/byte")]
    best = summary["best"]
    if best:
        label = f"best member (trial {best['trial']}, step {best['step']})"
        rows.append((label, _number(best["loss"]), _number(best["bits_per_byte"])))
        rows += [(f"  {name}", _number(x), "") for name, x in best.get("metrics", {}).items()]
    for name, row in summary["baselines"].items():
        bits = row["bits_per_byte"]  # a classifier's loss has none
        bits = bits if math.isfinite(bits) else None
        rows.append((f"{name} model", _number(row["loss"]), _number(bits)))
    alone = best and all(set(row.values()) == {best["loss"]} for row in summary["groups"].values())
    for group, row in () if alone else summary["groups"].items():
        rows += [(f"{group}, {which}", _number(row[which]), "") for which in ("best", "median")]
    gain = summary["gain"]
    if gain:
        rows += [(f"gain over the {which} fixed", _number(gain[which]), "") for which in gain]
    width = max(len(row[0]) for row in rows)
    lines = [f"{a:<{width}}  {b:>13}  {c:>9}".rstrip() for a, b, c in rows]
    if best and best.get("point"):
        lines += ["", "the best member's", *_point(best["point"])]
    return "\n".join([*lines, "", _costs(summary)])


def _point(point: Mapping[str, Any]) -> list[str]:
    """One line for each value that was searched."""
    wide = max(map(len, point))
    plain = lambda value: f"{value:.4g}" if isinstance(value, float) else str(value)
    return [f"  {name:<{wide}}  {plain(value)}" for name, value in sorted(point.items())]


def _costs(summary: Mapping[str, Any]) -> str:
    costs = summary["costs"]
    parts = [f"{costs['member_steps']:,} member steps"]
    if costs["exploits"]:
        parts.append(f"{costs['exploits']} exploits")
    if costs["probe_steps"]:
        parts.append(f"{costs['probe_steps']:,} probe steps ({costs['probe_share']:.0%} of all)")
    if costs["seconds"] is not None:
        parts.append(f"{costs['seconds']:.0f} s")
    if costs["tokens_per_second"] is not None:
        parts.append(f"{costs['tokens_per_second']:,.0f} tokens/s")
    parts += [
        f"{text} {costs[name]:.0%}"
        for name, text in (("mfu", "MFU"), ("goodput", "goodput"))
        if costs.get(name) is not None
    ]
    return f"{summary['status']}: {', '.join(parts)}"


def _number(value: float | None) -> str:
    return "" if value is None else "not finite" if not math.isfinite(value) else f"{value:.4f}"
