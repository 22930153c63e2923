"""The parts of the report page that are words and tables."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxhpo.report.canvas import group_label, loss_text, seconds_text, short
from jaxhpo.report.lineage import History
from jaxhpo.report.markup import Markup, table, tag
from jaxhpo.report.summary import CONTROL, POPULATION

SHOWN_CHECKPOINTS = 8
SHOWN_MEMBERS = 64
STATUS = {
    "finished": "Finished",
    "stopped": "Stopped before its end; it can be resumed",
    "unfinished": "Not finished: this page shows what was reported so far",
}


def header(name: str, history: History, summary: Mapping[str, Any]) -> Markup:
    """Title, what came out in two sentences, and the numbers to compare."""
    start = history.start or {}
    each = " each" if len(summary["members"]) > 1 else ""
    size = start.get("parameters")
    facts = [
        f"{count(start.get('members', len(summary['members'])), 'member')}",
        f"{short(size)} parameters{each}" if size else None,
        f"{short(summary['costs']['member_steps'])} member-steps",
        seconds_text(summary["costs"]["seconds"]) if summary["costs"]["seconds"] else None,
    ]
    warn = (
        None
        if summary["status"] == "finished"
        else tag("p", STATUS[summary["status"]], class_="warning")
    )
    return tag(
        "header",
        tag("p", "jaxhpo · run report", class_="overline"),
        tag("h1", name),
        tag("p", outcome(summary), " ", verdict(summary), class_="lead"),
        tag("p", " · ".join(fact for fact in facts if fact), class_="note"),
        warn,
        tag("div", tiles(summary), class_="tiles"),
    )


def outcome(summary: Mapping[str, Any]) -> str:
    """The best member in one sentence, the baselines beside it."""
    best = summary["best"]
    if best is None:
        return "No member has a finite held-out loss."
    text = f"Trial {best['trial']} reached a held-out loss of {_nats(best, summary['unit'])}"
    text += f" at step {short(best['step'])}"
    for name, value in best.get("metrics", {}).items():
        text += f", {name} {value:.4f}"
    for name, row in summary["baselines"].items():
        gap = row["loss"] - best["loss"]
        side = "below" if gap > 0 else "above"
        what = "" if summary["unit"] == "squared error" else " nats"
        text += f", {abs(gap):.3f}{what} {side} a {name} model ({loss_text(row['loss'])})"
    return text + "."


def verdict(summary: Mapping[str, Any]) -> str:
    """Whether PBT was worth it; empty without a control group."""
    gain = summary["gain"]
    if gain is None:
        return ""
    if not math.isfinite(gain["best"]):
        return "PBT can't be compared: one of the two groups has no finite loss."
    so_far = "" if summary["status"] == "finished" else " so far"
    side = "above" if gain["best"] < 0 else "below"
    return (
        f"PBT's best member is{so_far} {abs(gain['best']):.3f} nats {side} the best of the same "
        f"initial hyperparameters held fixed: a gain of {signed(gain['best'])} against their best "
        f"and {signed(gain['median'])} against their median. One run has no interval: a small gain "
        "may be chance."
    )


def tiles(summary: Mapping[str, Any]) -> list[Markup]:
    shown = []
    if summary["best"]:
        shown.append(_loss_tile("Best held-out loss", summary["best"], "best", summary["unit"]))
        for name, value in summary["best"].get("metrics", {}).items():
            ranks = (
                "what the search ranked by" if name == summary["metric"] else "of the same trial"
            )
            shown.append(_tile(name.capitalize(), f"{value:.4f}", ranks, ""))
    for name, row in summary["baselines"].items():
        shown.append(_loss_tile(f"{name.capitalize()} baseline", row, "", summary["unit"]))
    for key, gain in (summary["gain"] or {}).items():
        fixed = summary["groups"][CONTROL][key]
        detail = f"nats against the {key} fixed member ({loss_text(fixed)}); plus is better"
        kind = "good" if gain > 0 else "bad"
        shown.append(_tile(f"PBT's gain over the {key}", signed(gain), detail, kind))
    return shown


def members(summary: Mapping[str, Any], names: Sequence[str]) -> Markup:
    """The members at the end, best first."""
    rows = summary["members"]
    grouped = len({row["group"] for row in rows}) > 1
    scored = any(row["score"] != row["loss"] for row in rows if math.isfinite(row["loss"]))
    head = ["rank", "trial", *(["group"] if grouped else []), "parent", "step", "loss", "bits/byte"]
    measured = list(dict.fromkeys(name for row in rows for name in row["metrics"]))
    head += [*measured, *(["score"] if scored else []), *names]
    body = []
    for row in rows[:SHOWN_MEMBERS]:
        leads = summary["best"] is not None and row["trial"] == summary["best"]["trial"]
        mark = (lambda text: tag("strong", text, class_="winner")) if leads else (lambda text: text)
        cells = [mark(row["rank"]), mark(row["trial"])]
        cells += [_short_group(row["group"])] if grouped else []
        cells += ["–" if row["parent"] is None else row["parent"], short(row["step"])]
        cells += [mark(loss_text(row["loss"])), _bits(row["bits_per_byte"])]
        cells += [f"{row['metrics'].get(name, math.nan):.4f}" for name in measured]
        cells += [loss_text(row["score"])] if scored else []
        body.append([*cells, *(short(row["point"].get(name, "–")) for name in names)])
    text = [i for i, name in enumerate(head) if name != "group"]
    listed = table([_breakable(name) for name in head], body, numeric=text)
    if len(rows) <= SHOWN_MEMBERS:
        return listed
    note = f"The first {SHOWN_MEMBERS} of {len(rows)}; the event log has all."
    return tag("div", tag("p", note, class_="note"), listed)


def samples(history: History) -> list[Markup]:
    """Text written by the trained members."""
    parts = []
    for sample in history.of("sample"):
        label = f"trial {sample['trial']}, temperature {short(sample.get('temperature', 1.0))}"
        prompt = sample.get("prompt") or ""
        text = sample.get("text") or ""
        text = text.removeprefix(prompt)
        parts += [
            tag("p", label, class_="note"),
            tag("pre", tag("span", prompt, class_="prompt"), text),
        ]
    return parts


def costs(summary: Mapping[str, Any]) -> Markup:
    spent = summary["costs"]
    rows = [
        ("member-steps trained", short(spent["member_steps"])),
        (
            "probe steps (cool-down copies)",
            f"{short(spent['probe_steps'])} ({spent['probe_share']:.1%} of all)",
        ),
        ("trials, exploits", f"{short(spent['trials'])}, {short(spent['exploits'])}"),
        ("tokens trained on", short(spent["tokens"])),
        (
            "tokens/s, all members",
            short(round(spent["tokens_per_second"])) if spent["tokens_per_second"] else None,
        ),
        *utilisation(spent),
        ("wall time", seconds_text(spent["seconds"]) if spent["seconds"] is not None else None),
        ("compilation", seconds_text(spent["compile_seconds"])),
        (
            "segments done again",
            seconds_text(spent["rewound_seconds"]) if spent["rewound_seconds"] else None,
        ),
        (
            "useful share",
            f"{spent['useful_share']:.1%}" if spent["useful_share"] is not None else None,
        ),
    ]
    return pairs(None, ((name, value) for name, value in rows if value is not None))


def utilisation(spent: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    """How well devices and time were used; None is what is not known."""
    share = lambda name: None if spent[name] is None else f"{spent[name]:.1%}"
    mfu, step = share("mfu"), spent["step_seconds"]
    if mfu is not None and spent["peak_flops"] is not None:
        peak = f"{spent['peak_flops'] / 1e12:.4g} TFLOP/s"
        mfu += f" of {peak} on each of {count(spent['devices'], 'device')} ({spent['peak_source']})"
    on, gib = spent["device_bytes"], lambda size: f"{size / 2**30:.2f} GiB"
    held = None if on is None else f"{gib(on)} on a device"
    if on is None and spent["host_bytes"] is not None:
        held = f"{gib(spent['host_bytes'])} of main memory"
    return [
        ("step, all members", None if step is None else f"{1000 * step:.4g} ms"),
        ("model FLOP/s utilisation (MFU)", mfu),
        ("goodput (segments over all time since the start)", share("goodput")),
        ("most memory held", held),
    ]


def checkpoints(history: History) -> Markup | None:
    saved = history.of("checkpoint")
    if not saved:
        return None
    rows = [
        (
            row["index"],
            tag("code", row.get("directory", "–")),
            _bytes(row.get("bytes")),
            f"{row['seconds']:.2f} s" if "seconds" in row else "–",
            tag("code", str(row.get("digest", "–"))[:16]),
        )
        for row in saved
    ]
    shown = rows[-SHOWN_CHECKPOINTS:]
    note = f"The newest {len(shown)} of {len(rows)}; the keep policy may have removed some since."
    listed = table(("report", "directory", "size", "saved in", "digest"), shown, numeric=(2, 3))
    return tag("div", tag("p", note, class_="note"), listed)


def settings(history: History) -> Markup:
    """Configuration, space, environment and fingerprints, section by section."""
    start = history.start or {}
    config = start.get("config") or {}
    plain = [(key, value) for key, value in config.items() if not isinstance(value, Mapping)]
    general = [("version", start.get("version")), ("command", start.get("command")), *plain]
    parts = [pairs("Run", ((key, value) for key, value in general if value is not None))]
    parts += [
        pairs(key, flat(value)) for key, value in config.items() if isinstance(value, Mapping)
    ]
    for title, key in (
        ("Space", "space"),
        ("Environment", "environment"),
        ("Fingerprints", "fingerprints"),
    ):
        if start.get(key):
            parts.append(pairs(title, flat(start[key])))
    return tag("div", parts, class_="columns")


def pairs(title: str | None, rows: Iterable[tuple[str, Any]]) -> Markup:
    body = [tag("tr", tag("td", key), tag("td", _plain(value))) for key, value in rows]
    heading = tag("h3", title) if title else None
    return tag("div", heading, tag("table", tag("tbody", body)), class_="pairs")


def flat(section: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Dotted names and values of a nested mapping."""
    rows: list[tuple[str, Any]] = []
    for key, value in section.items():
        nested = isinstance(value, Mapping)
        rows += flat(value, f"{prefix}{key}.") if nested else [(f"{prefix}{key}", value)]
    return rows


def signed(value: float) -> str:
    """A difference with its sign, a true minus included."""
    return f"{value:+.3f}".replace("-", "−").replace("inf", "∞").replace("+nan", "NaN")


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(_plain(item) for item in value) or "none"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


def _nats(row: Mapping[str, Any], unit: str) -> str:
    bits = row.get("bits_per_byte")
    tail = f" ({bits:.3f} bits per byte)" if bits is not None and math.isfinite(bits) else ""
    return f"{loss_text(row['loss'])} {unit}{tail}"


def _bits(value: float | None) -> str:
    return "–" if value is None else loss_text(value)


def _loss_tile(label: str, row: Mapping[str, Any], kind: str, unit: str) -> Markup:
    bits = row.get("bits_per_byte")
    known = bits is not None and math.isfinite(bits)
    detail = f"{unit}; {bits:.3f} bits per byte" if known else unit
    return _tile(label, loss_text(row["loss"]), detail, kind)


def _tile(label: str, value: str, detail: str, kind: str) -> Markup:
    spans = [
        tag("span", text, class_=name)
        for name, text in (("label", label), ("value", value), ("detail", detail))
    ]
    return tag("div", spans, class_=f"tile {kind}".strip())


def _short_group(group: str) -> str:
    return {POPULATION: "PBT", CONTROL: "fixed"}.get(group, group_label(group))


def _breakable(name: str) -> Markup | str:
    """A dotted name over two lines, so that columns stay narrow."""
    section, dot, rest = name.partition(".")
    return tag("span", section, dot, tag("br"), rest) if dot else name


def _bytes(size: int | None) -> str:
    if size is None:
        return "–"
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
