"""How the run is going, on the terminal: a progress bar, or a line for each segment."""

import math
import sys
from typing import Any, Literal, TextIO

from jaxhpo.record.trackers.protocol import Exploit, RunInfo, Snapshot, Summary

Style = Literal["auto", "bar", "lines"]


class Console:
    """Step, best and median held-out loss, tokens/s, time left; exploits as they happen.

    Lines have no escape codes and are pure ASCII where the stream can't show more.
    """

    def __init__(self, style: Style = "auto", stream: TextIO | None = None) -> None:
        self._stream = sys.stdout if stream is None else stream
        self._style = style
        if style == "auto":
            self._style = "bar" if self._stream.isatty() else "lines"
        self._progress: Any = None
        self._task: Any = None
        self._trials: int | None = None

    def start(self, info: RunInfo) -> None:
        self._trials = info.trials
        if self._style == "bar":
            self._progress = _progress_bar(self._stream, "step" if info.trials is None else "%")
            self._task = self._progress.add_task(
                "training",
                total=info.total_steps if info.trials is None else 100,
                completed=info.step if info.trials is None else 0,
                status="",
            )
            self._progress.start()
        else:
            many = f"{info.members} members, {info.total_steps} steps each"
            if info.members == 1:
                many = f"1 member, {info.total_steps} steps"
            if info.trials is not None:
                many = f"up to {info.trials} trials, {info.total_steps} steps for those that last"
            self.note(f"{info.name}: {many}")

    def segment(self, snapshot: Snapshot) -> None:
        for exploit in snapshot.exploits:
            self.note(exploit_line(exploit))
        if self._progress is None:
            share = f"step {snapshot.step}/{snapshot.total_steps}"
            if self._trials is not None:
                share = f"{snapshot.share:.0%}  {snapshot.trials} trials, {share}"
            self.note("  ".join([share, *status_parts(snapshot)]))
        else:
            parts = status_parts(snapshot)
            done = snapshot.step
            if self._trials is not None:
                parts, done = [f"{snapshot.trials} trials", *parts], round(100 * snapshot.share)
            self._progress.update(self._task, completed=done, status="  ".join(parts))

    def note(self, text: str) -> None:
        if self._progress is not None:
            self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)
            return
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        plain = text.replace("←", "<-").replace("→", "->")
        try:
            text.encode(encoding)
        except UnicodeEncodeError:
            text = plain.encode(encoding, "replace").decode(encoding)
        self._stream.write(text + "\n")
        self._stream.flush()

    def finish(self, summary: Summary) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
        parts = [summary.status]
        if summary.best is not None:
            best = summary.best
            parts.append(f"best {best.loss:.4f} nats (trial {best.trial}, step {best.step})")
        if math.isfinite(summary.seconds):
            parts.append(f"in {duration(summary.seconds)}")
        self.note("  ".join(parts))


def status_parts(snapshot: Snapshot) -> list[str]:
    """The texts that say where a run stands.

    >>> from jaxhpo.record.trackers.protocol import TrialResult
    >>> rows = (TrialResult(3, 50, 2.5, 2.5), TrialResult(4, 50, 2.75, 2.75))
    >>> status_parts(Snapshot(50, 600, rows, tokens_per_second=21300.0, seconds_left=75.0))
    ['best 2.5000 nats (trial 3)', 'median 2.6250', '21.3k tokens/s', '1m 15s left']
    >>> status_parts(Snapshot(50, 600, rows, mfu=0.431, goodput=0.912))[2:]
    ['MFU 43%, goodput 91%']
    """
    best = snapshot.best
    parts = (
        ["no finite loss"] if best is None else [f"best {best.loss:.4f} nats (trial {best.trial})"]
    )
    parts.append(f"median {snapshot.median:.4f}")
    if math.isfinite(snapshot.tokens_per_second):
        parts.append(f"{_thousands(snapshot.tokens_per_second)} tokens/s")
    shares = {"MFU": snapshot.mfu, "goodput": snapshot.goodput}
    if known := [f"{name} {x:.0%}" for name, x in shares.items() if math.isfinite(x)]:
        parts.append(", ".join(known))
    if math.isfinite(snapshot.seconds_left):
        parts.append(f"{duration(snapshot.seconds_left)} left")
    return parts


def exploit_line(exploit: Exploit) -> str:
    """One exploit.

    >>> exploit_line(Exploit(12, 3, {"schedule.peak_lr": (0.011, 0.0132)}))
    '  trial 12 ← 3  peak_lr 0.011→0.0132'
    """
    changes = "  ".join(
        f"{name.rsplit('.', 1)[-1]} {_value(old)}→{_value(new)}"
        for name, (old, new) in exploit.changes.items()
    )
    return f"  trial {exploit.trial} ← {exploit.parent}  {changes}".rstrip()


def duration(seconds: float) -> str:
    """Seconds for people.

    >>> duration(5.2), duration(125.0), duration(7322.0)
    ('5s', '2m 05s', '2h 02m')
    """
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"


def _value(value: float | int | str) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _thousands(number: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.1f}{letter}"
    return f"{number:.0f}"


def _progress_bar(stream: TextIO, unit: str) -> Any:
    from rich.console import Console as RichConsole
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    return Progress(
        TextColumn(unit),
        MofNCompleteColumn(),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[status]}"),
        console=RichConsole(file=stream),
        refresh_per_second=4,
    )
