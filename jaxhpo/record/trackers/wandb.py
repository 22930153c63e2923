"""A mirror of the run on Weights & Biases. It may fail at any time; the run doesn't notice."""

import contextlib
import hashlib
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

from jaxhpo.record.redaction import redact
from jaxhpo.record.trackers.composite import one_line
from jaxhpo.record.trackers.protocol import RunInfo, Snapshot, Summary
from jaxhpo.record.trackers.rows import curve_rows, held_out, speed

Mode = Literal["disabled", "offline", "online"]
_MAX_WAITING = 256


class Wandb:
    """Feeds W&B from a thread of its own; what comes while W&B is stuck is dropped.

    One run for the population by default: `train/step`, `pop/best`, `pop/median`, `member/007/loss`
    (held out, nats), `member/007/train_loss` and other curves, `member/007/<hyperparameter>`. With
    `per_trial`, one run per trial in a group: ids are made from the run's name, parents are in the
    config and in tags; so is the run that this one was forked from, and with `fork` it begins as a
    fork of that run's mirror. Files go to the run directory. `note` receives what people should
    know.

    A run that is resumed goes on under the same id. Rows are numbered by what they are about, so
    that those of segments done again have the numbers that they had, and W&B, which takes a number
    once, is not given them again; of a W&B fork, whose numbers begin at its parent's, it counts.
    """

    def __init__(
        self,
        mode: Mode,
        project: str = "jaxhpo",
        *,
        per_trial: bool = False,
        fork: bool = False,
        timeout: float = 10.0,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._mode: Mode = mode
        self._project = project
        self._per_trial = per_trial
        self._fork = fork
        self._timeout = timeout
        self._note = note
        self._queue: queue.Queue[Callable[[], None] | None] = queue.Queue(_MAX_WAITING)
        self._thread: threading.Thread | None = None
        self._begun = threading.Event()
        self._failed = False
        self._dropped = 0
        self._runs: dict[int | None, Any] = {}
        self._next: dict[str, int] = {}
        """by id of a W&B run, the number of its next row"""
        self._started: RunInfo | None = None

    def start(self, info: RunInfo) -> None:
        self._started = info
        self._thread = threading.Thread(target=self._work, name="wandb-mirror", daemon=True)
        self._thread.start()
        self._put(self._begin)

    @property
    def _info(self) -> RunInfo:
        if self._started is None:
            raise RuntimeError("a tracker is started before it is told anything")
        return self._started

    def segment(self, snapshot: Snapshot) -> None:
        self._put(lambda: self._log(snapshot))

    def note(self, text: str) -> None:
        pass

    def finish(self, summary: Summary) -> None:
        """Waits for about `timeout` seconds; an offline run can be uploaded with `wandb sync`."""
        if self._thread is None:
            return
        rounds = 1 if self._begun.is_set() else 2  # a run this short has W&B's start to wait for
        deadline = time.monotonic() + rounds * (self._timeout + 2.0)
        with contextlib.suppress(queue.Full):
            for job in (lambda: self._end(summary), None):
                if not self._failed:
                    self._queue.put(job, timeout=max(0.0, deadline - time.monotonic()))
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            self._failed = True
            self._note("W&B did not answer in time; the event log has everything")
        elif self._dropped:
            self._note(f"W&B was too slow for {self._dropped} updates; the event log has them")

    def _put(self, job: Callable[[], None]) -> None:
        if self._failed:
            return
        try:
            self._queue.put_nowait(job)
        except queue.Full:
            self._dropped += 1

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            try:
                if not self._failed:
                    job()
            except Exception as error:
                self._failed = True
                self._note(f"W&B failed and is off from here on: {one_line(error)}")
                return

    def _begin(self) -> None:
        import wandb

        wandb.setup(wandb.Settings(silent=True))
        self._mode = self._allowed_mode(wandb)
        if not self._per_trial:
            config = {**redact(self._info.config), **self._parent(None)}
            self._runs[None] = self._open(None, config, self._tags())
            self._runs[None].define_metric("*", step_metric="train/step")
        self._begun.set()

    def _allowed_mode(self, wandb: Any) -> Mode:
        asked = os.environ.get("WANDB_MODE", "")
        if asked == "disabled" or (asked == "offline" and self._mode == "online"):
            return asked
        if self._mode == "online" and not wandb.login(prompt=False, verify=False):
            self._note("W&B has no API key (WANDB_API_KEY); writing an offline run instead")
            return "offline"
        return self._mode

    def _open(
        self, trial: int | None, config: Mapping[str, Any], tags: tuple[str, ...] = ()
    ) -> Any:
        import wandb

        name = self._info.name
        arguments: dict[str, Any] = {
            "project": self._project,
            "id": (trial is None and in_a_sweep()) or run_id(self._info, trial),
            "name": name if trial is None else f"{name}-trial-{trial:03d}",
            "group": None if trial is None else run_id(self._info, None),
            "config": dict(config),
            "tags": list(tags),
            "dir": str(self._info.directory),
            "resume": "allow",
            "reinit": "create_new",
            "settings": self._settings(wandb),
        }
        if self._forks:
            found = self._begin_fork(wandb, trial, arguments)
            if found is not None:
                return found
        try:
            return wandb.init(mode=self._mode, **arguments)
        except Exception as error:
            if self._mode == "offline":
                raise
            self._mode = "offline"
            self._note(f"W&B can't be reached, writing an offline run instead: {one_line(error)}")
            free = f"{arguments['id']}-offline"  # W&B holds on to the id of a failed start
            return wandb.init(mode="offline", **{**arguments, "id": free})

    @property
    def _forks(self) -> bool:
        """Does a run begin as a fork of its parent's mirror?"""
        parent = self._info.parent
        return self._fork and self._mode == "online" and parent is not None and parent.fresh

    def _begin_fork(self, wandb: Any, trial: int | None, arguments: dict[str, Any]) -> Any:
        """A run that W&B forks from the parent's; None, with a note, where the server can't."""
        parent = self._info.parent
        if parent is None:
            return None
        theirs = RunInfo(parent.name, parent.directory, 0, 0)
        mine = (None, parent.step) if trial is None else parent.trials.get(trial)
        if mine is None:
            return None
        try:
            at = _logged_at(wandb, self._project, run_id(theirs, mine[0]), mine[1], self._timeout)
            source = f"{run_id(theirs, mine[0])}?_step={at}"
            return wandb.init(mode="online", **{**arguments, "resume": None, "fork_from": source})
        except Exception as error:
            self._note(f"W&B can't fork {parent.name}, a new run instead: {one_line(error)}")
            return None

    def _parent(self, trial: int | None) -> dict[str, Any]:
        """The entry of a run's config about what it was forked from."""
        parent = self._info.parent
        if parent is None:
            return {}
        about = {"run": parent.name, "run_id": parent.id, "preset": parent.preset}
        if trial is None:
            return {"parent": {**about, "step": parent.step}}
        source, step = parent.trials.get(trial, (None, None))
        return {"parent": {**about, "trial": source, "step": step}}

    def _tags(self) -> tuple[str, ...]:
        parent = self._info.parent
        return () if parent is None else (f"parent:{parent.name}", f"fork:{parent.preset}")

    def _settings(self, wandb: Any) -> Any:
        wanted = {
            "init_timeout": self._timeout,
            "finish_timeout": self._timeout,
            "console": "off",  # or every printed line is uploaded, secrets too
            "silent": True,
            "disable_git": True,
            "disable_code": True,
            "x_disable_meta": True,  # command line, host name, user
            "x_disable_stats": True,
            "x_save_requirements": False,
        }
        known = getattr(wandb.Settings, "model_fields", wanted)
        return wandb.Settings(**{name: value for name, value in wanted.items() if name in known})

    def _log(self, snapshot: Snapshot) -> None:
        if self._per_trial:
            self._log_trials(snapshot)
            return
        run = self._runs[None]
        rows = curve_rows(snapshot, prefix=True)
        for place, (step, row) in enumerate(rows):
            self._row(run, snapshot.first_row + place, {"train/step": step, **row})
        best = snapshot.best
        self._row(
            run,
            snapshot.first_row + len(rows),
            {
                "train/step": snapshot.step,
                "pop/best": None if best is None else best.loss,
                "pop/median": snapshot.median,
                **speed(snapshot),
                **held_out(snapshot),
            },
        )

    def _log_trials(self, snapshot: Snapshot) -> None:
        parents = {exploit.trial: exploit.parent for exploit in snapshot.exploits}
        rows = curve_rows(snapshot, prefix=False)
        for result in snapshot.results:
            trial = result.trial
            run = self._runs.get(trial) or self._begin_trial(trial, snapshot)
            about = dict(snapshot.points.get(trial, {}))
            if trial in parents:
                run.tags = tuple(dict.fromkeys([*(run.tags or ()), f"parent:{parents[trial]}"]))
                run.config.update({"parent": parents[trial]}, allow_val_change=True)
                about["parent"] = parents[trial]
            for step, row in rows:
                if trial in row:
                    self._row(run, 2 * step, {"train/step": step, **row[trial]})
            about |= {"train/step": result.step, "loss": result.loss, **speed(snapshot)}
            self._row(run, 2 * result.step - 1, about)

    def _row(self, run: Any, number: int, row: Mapping[str, Any]) -> None:
        """Logs a row unless W&B has one of that number or a later one."""
        if self._fork and self._info.parent is not None:
            run.log(row)
            return
        if run.id not in self._next:
            self._next[run.id] = run.step  # asks W&B's process: not for every row
        if number >= self._next[run.id]:
            self._next[run.id] = number + 1
            run.log(row, step=number)

    def _begin_trial(self, trial: int, snapshot: Snapshot) -> Any:
        config = {**redact(self._info.config), "trial": trial, "parent": None}
        config |= {"point": dict(snapshot.points.get(trial, {})), **self._parent(trial)}
        run = self._open(trial, config, tags=(f"trial:{trial}", *self._tags()))
        run.define_metric("*", step_metric="train/step")
        self._runs[trial] = run
        return run

    def _end(self, summary: Summary) -> None:
        for trial, run in self._runs.items():
            run.summary["status"] = summary.status
            if trial is None and summary.best is not None:
                run.summary["best/loss"] = summary.best.loss
                run.summary["best/trial"] = summary.best.trial
                run.summary.update(redact(summary.details))
            run.finish(exit_code=0 if summary.status in ("finished", "stopped") else 1)


def in_a_sweep() -> str:
    """The id that a sweep's agent gave to this run; empty without an agent."""
    return os.environ.get("WANDB_RUN_ID", "") if os.environ.get("WANDB_SWEEP_ID") else ""


def _logged_at(wandb: Any, project: str, run: str, step: int, timeout: float) -> int:
    """The row of a mirrored run's history that a training step is in. Raises LookupError."""
    rows = wandb.Api(timeout=max(1, int(timeout))).run(f"{project}/{run}")
    found = -1
    for row in rows.scan_history(keys=["_step", "train/step"]):
        if row["train/step"] < step:
            found = max(found, row["_step"])
    if found < 0:
        raise LookupError(f"{run} has no step before {step}")
    return found


def run_id(info: RunInfo, trial: int | None) -> str:
    """The same id for the same run directory and trial, whichever process asks."""
    place = hashlib.sha256(str(info.directory.absolute()).encode()).hexdigest()[:8]
    name = "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in info.name)
    return f"{name[:40]}-{place}" + ("" if trial is None else f"-t{trial:03d}")
