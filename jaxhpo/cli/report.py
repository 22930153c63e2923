"""`jaxhpo report RUN`: draw the figures of a run and write its page, finished or not."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxhpo.cli.positional import run_directory


def main(argv: Sequence[str]) -> int:
    run = run_directory(argv, "report", __doc__ or "")
    from jaxhpo.report.page import write_report

    show(run, write_report(run))
    return 0


def show(run: Path, page: Path) -> None:
    """Prints what a run found, and where its page is."""
    from jaxhpo.record.directory import RunDirectory
    from jaxhpo.record.history import history
    from jaxhpo.report.summary import summarise

    past = history(RunDirectory.open(run).log)
    if past.fork is not None:
        from jaxhpo.cli.fork import account

        print(account(past))
    else:
        print(table(summarise(past)))
    print(f"\nrun     {run}\nreport  {page}")


def table(summary: Mapping[str, Any]) -> str:
    """The outcome of a run in a few aligned lines: losses in nats per token and bits per byte."""
    rows = [("", "held-out loss", "bits/byte")]
    best = summary["best"]
    if best:
        label = f"best member (trial {best['trial']}, step {best['step']})"
        rows.append((label, _number(best["loss"]), _number(best["bits_per_byte"])))
    for name, row in summary["baselines"].items():
        rows.append((f"{name} model", _number(row["loss"]), _number(row["bits_per_byte"])))
    for group, row in summary["groups"].items():
        rows += [(f"{group}, {which}", _number(row[which]), "") for which in ("best", "median")]
    gain = summary["gain"]
    if gain:
        rows += [(f"gain over the {which} fixed", _number(gain[which]), "") for which in gain]
    width = max(len(row[0]) for row in rows)
    lines = [f"{a:<{width}}  {b:>13}  {c:>9}".rstrip() for a, b, c in rows]
    return "\n".join([*lines, "", _costs(summary)])


def _costs(summary: Mapping[str, Any]) -> str:
    costs = summary["costs"]
    parts = [f"{costs['member_steps']:,} member steps", f"{costs['exploits']} exploits"]
    if costs["probe_steps"]:
        parts.append(f"{costs['probe_steps']:,} probe steps ({costs['probe_share']:.0%} of all)")
    if costs["seconds"] is not None:
        parts.append(f"{costs['seconds']:.0f} s")
    if costs["tokens_per_second"] is not None:
        parts.append(f"{costs['tokens_per_second']:,.0f} tokens/s")
    return f"{summary['status']}: {', '.join(parts)}"


def _number(value: float | None) -> str:
    return "" if value is None else "not finite" if not math.isfinite(value) else f"{value:.4f}"
