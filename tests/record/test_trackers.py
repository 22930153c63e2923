"""Trackers: what people see, and that nothing they do stops a run."""

import io
import json
import math
import os
import subprocess
import sys
import time
import types
from dataclasses import replace
from pathlib import Path

import pytest

from jaxhpo.record import TrackerConfig
from jaxhpo.record.trackers import (
    TRACKERS,
    Composite,
    Console,
    Exploit,
    NoTracker,
    RunInfo,
    Snapshot,
    Summary,
    TrialResult,
    Wandb,
    make_tracker,
)
from jaxhpo.record.trackers.protocol import ForkedFrom
from jaxhpo.record.trackers.wandb import run_id


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def info(tmp_path):
    config = {"steps": 100, "tracker": {"api_key": "CANARY"}, "optimizer": {"clip_norm": math.inf}}
    return RunInfo("pbt-0001", tmp_path, total_steps=100, members=3, config=config)


def snapshot(step=50):
    return Snapshot(
        step=step,
        total_steps=100,
        results=(
            TrialResult(0, step, 2.75, 2.7),
            TrialResult(1, step, 2.5, 2.4),
            TrialResult(2, step, math.nan, math.nan),
            TrialResult(3, step, 1.0, 1.0, group="fixed"),
        ),
        exploits=(Exploit(2, 1, {"schedule.peak_lr": (0.011, 0.0132)}),),
        points={0: {"schedule.peak_lr": 0.01}, 1: {"schedule.peak_lr": 0.011}},
        curves={1: {"step": [step - 1, step], "loss": [2.6, 2.55], "lr": [0.01, 0.01]}},
        tokens_per_second=21_300.0,
        seconds_left=65.0,
    )


def drive(tracker, info):
    tracker.start(info)
    tracker.segment(snapshot(50))
    tracker.note("checkpoint 3 skipped")
    tracker.segment(snapshot(100))
    tracker.finish(Summary(best=TrialResult(1, 100, 2.5, 2.4), seconds=125.0))


MAKE = {
    "console": lambda: Console("lines"),
    "wandb": lambda: Wandb("offline"),
    "none": NoTracker,
}


@pytest.mark.parametrize("name", sorted(TRACKERS))
def test_every_tracker_of_the_table_lives_through_a_run(name, info, capfd):
    tracker = MAKE[name]()
    assert type(tracker) is TRACKERS[name]
    drive(tracker, info)
    assert "Traceback" not in capfd.readouterr().err


def test_a_diverged_trial_and_a_fixed_one_are_never_the_best():
    assert snapshot().best.trial == 1
    assert snapshot().median == 2.75  # NaN counts as infinite, the fixed group not at all
    lost = Snapshot(1, 2, (TrialResult(0, 1, math.nan, math.nan),))
    assert lost.best is None and lost.median == math.inf


def test_lines_say_where_the_run_stands_without_escape_codes(info):
    stream = io.StringIO()
    drive(make_tracker(TrackerConfig(), stream), info)
    assert stream.getvalue().splitlines() == [
        "pbt-0001: 3 members, 100 steps each",
        "  trial 2 ← 1  peak_lr 0.011→0.0132",
        "step 50/100  best 2.5000 nats (trial 1)  median 2.7500  21.3k tokens/s  1m 05s left",
        "checkpoint 3 skipped",
        "  trial 2 ← 1  peak_lr 0.011→0.0132",
        "step 100/100  best 2.5000 nats (trial 1)  median 2.7500  21.3k tokens/s  1m 05s left",
        "finished  best 2.5000 nats (trial 1, step 100)  in 2m 05s",
    ]


def test_one_model_is_one_member(info):
    stream = io.StringIO()
    Console("lines", stream).start(replace(info, members=1))
    assert stream.getvalue() == "pbt-0001: 1 member, 100 steps\n"


def test_a_stream_that_knows_no_arrows_gets_ascii(info):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    drive(Console("lines", stream), info)
    assert b"trial 2 <- 1  peak_lr 0.011->0.0132" in raw.getvalue()


def test_a_terminal_gets_a_bar_with_the_same_numbers(info, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    drive(make_tracker(TrackerConfig(), stream), info)
    text = stream.getvalue()
    for part in ("100/100", "best 2.5000 nats", "median 2.7500", "21.3k tokens/s", "1m 05s left"):
        assert part in text
    assert "trial 2 ← 1  peak_lr 0.011→0.0132" in text and "\x1b[" in text


def test_a_tracker_that_fails_is_left_out_and_named_once(info):
    class Broken(NoTracker):
        calls = 0

        def segment(self, snapshot):
            Broken.calls += 1
            raise OSError("no more\nroom")

    stream = io.StringIO()
    drive(Composite([Broken(), Console("lines", stream)]), info)
    assert Broken.calls == 1
    assert stream.getvalue().count("Broken failed and is left out") == 1
    assert "OSError: no more\n" in stream.getvalue() and "step 100/100" in stream.getvalue()


def records(directory: Path):
    (path,) = (directory / "wandb").glob("offline-run-*/*.wandb")
    return records_of(path)


def records_of(path: Path):
    done = subprocess.run(
        [sys.executable, "-m", "wandb", "leet", "inspect", str(path), "--json"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.strip().startswith("{")]


def test_the_offline_mirror_can_be_read_and_holds_no_secret(info, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "c0ffee" * 6 + "cafe")
    print("CANARY on the console")
    notes = []
    drive(Wandb("offline", note=notes.append), info)
    assert notes == []
    text = json.dumps(records(info.directory))
    for name in (
        "pop/best",
        "pop/median",
        "member/001/loss",
        "member/001/train_loss",
        "train/step",
    ):
        assert name in text
    for path in (info.directory / "wandb").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert b"CANARY" not in content and b"c0ffee" not in content, path


def test_one_run_per_trial_comes_with_parents_in_a_group(info):
    notes = []
    drive(Wandb("offline", per_trial=True, note=notes.append), info)
    assert notes == []
    runs = sorted((info.directory / "wandb").glob("offline-run-*"))
    ids = [path.name.rsplit("-", 1)[-1] for path in runs]
    assert sorted(ids) == ["t000", "t001", "t002", "t003"]
    assert any(b"parent:1" in path.read_bytes() for path in runs[2].glob("*.wandb"))


def test_a_mirror_that_fails_says_so_once_and_falls_silent(info, monkeypatch):
    import wandb

    def fail(**_):
        raise RuntimeError("the service broke\nwith details")

    monkeypatch.setattr(wandb, "init", fail)
    notes = []
    drive(Wandb("offline", note=notes.append), info)
    assert notes == ["W&B failed and is off from here on: RuntimeError: the service broke"]


def test_a_mirror_that_is_stuck_never_holds_the_run_up(info, monkeypatch):
    import wandb

    monkeypatch.setattr(wandb, "init", lambda **_: time.sleep(30))
    notes = []
    mirror = Wandb("offline", timeout=1.0, note=notes.append)
    started = time.monotonic()
    mirror.start(info)
    for _ in range(1000):
        mirror.segment(snapshot())
    assert time.monotonic() - started < 1.0
    mirror._timeout = -1.8  # wait less than half a second
    mirror.finish(Summary())
    assert time.monotonic() - started < 2.0
    assert notes == ["W&B did not answer in time; the event log has everything"]


ONLINE = """
import sys, time
from pathlib import Path
from jaxhpo.record.trackers import RunInfo, Summary, Wandb
mirror = Wandb("online", timeout=4.0, note=lambda text: print(text, flush=True))
started = time.monotonic()
mirror.start(RunInfo("pbt-0001", Path(sys.argv[1]), total_steps=1, members=1))
print("held up" if time.monotonic() - started > 0.5 else "goes on", flush=True)
mirror.finish(Summary())
"""


@pytest.mark.parametrize(
    ("key", "note"),
    [
        ("", "W&B has no API key (WANDB_API_KEY); writing an offline run instead"),
        ("c0ffee" * 6 + "cafe", "W&B can't be reached, writing an offline run instead: CommError"),
    ],
)
def test_an_online_run_that_reaches_nobody_becomes_an_offline_one(tmp_path, key, note):
    own = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    nowhere = {"WANDB_BASE_URL": "http://127.0.0.1:9", "NETRC": os.devnull, "HOME": str(tmp_path)}
    started = time.monotonic()  # wandb keeps its settings for the life of a process
    done = subprocess.run(
        [sys.executable, "-c", ONLINE, str(tmp_path)],
        env={**own, **nowhere, **({"WANDB_API_KEY": key} if key else {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    lines = done.stdout.splitlines()
    assert lines[0] == "goes on" and len(lines) == 2 and lines[1].startswith(note), done
    assert done.stderr == ""
    assert list((tmp_path / "wandb").glob("offline-run-*"))
    assert time.monotonic() - started < 30.0


class FakeWandb(types.ModuleType):
    """Remembers what runs are opened with; its server forks, or refuses to."""

    def __init__(self, forks: bool) -> None:
        super().__init__("wandb")
        self.forks, self.opened = forks, []

    def setup(self, settings):
        pass

    def login(self, **_):
        return True

    class Settings:
        def __init__(self, **_):
            pass

    def Api(self, **_):
        rows = [{"_step": 3 * step, "train/step": step} for step in range(400)]
        history = types.SimpleNamespace(scan_history=lambda keys: rows)
        return types.SimpleNamespace(run=lambda path: history)

    def init(self, **arguments):
        if "fork_from" in arguments and not self.forks:
            raise RuntimeError("forking is not enabled")
        self.opened.append(arguments)
        run = types.SimpleNamespace(summary={}, tags=(), config={}, step=0, id="r")
        run.log = lambda row, step=None: None
        run.define_metric, run.finish = (lambda *_, **__: None), (lambda **_: None)
        return run


@pytest.mark.parametrize(("asked", "forks"), [(False, True), (True, True), (True, False)])
def test_a_fork_names_its_parent_and_begins_as_its_fork_where_the_server_can(
    info, monkeypatch, asked, forks
):
    fake, notes = FakeWandb(forks), []
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    parent = ForkedFrom("trunk", info.directory.parent / "trunk", "ab12", "decay", {1: (0, 300)})
    tracker = Wandb("online", fork=asked, note=notes.append)
    tracker.start(replace(info, parent=parent))
    tracker.finish(Summary())
    (arguments,) = fake.opened
    assert arguments["config"]["parent"] == {
        "run": "trunk", "run_id": "ab12", "preset": "decay", "step": 300
    }  # fmt: skip
    assert arguments["tags"] == ["parent:trunk", "fork:decay"]
    theirs = run_id(RunInfo("trunk", parent.directory, 0, 0), None)
    wanted = f"{theirs}?_step={3 * 299}" if asked and forks else None
    assert arguments.get("fork_from") == wanted
    assert any("can't fork trunk" in note for note in notes) == (asked and not forks)


def test_a_resumed_run_goes_on_under_its_id_and_no_row_comes_twice(info):
    """The second process does the second segment again: its rows have the numbers they had."""
    notes = []
    for first, row in ((50, 0), (50, 0)):
        time.sleep(1.0)  # the folders of two processes are told apart by the second
        tracker = Wandb("offline", note=notes.append)
        tracker.start(info)
        tracker.segment(replace(snapshot(first), first_row=row))
        tracker.segment(replace(snapshot(100), first_row=3))
        tracker.segment(replace(snapshot(100), first_row=3))  # W&B has these by now
        tracker.finish(Summary())
    assert notes == []
    found = sorted((info.directory / "wandb").glob("offline-run-*/*.wandb"))
    assert len({path.name for path in found}) == 1
    for path in found:
        rows = records_of(path)
        (run,) = [each["run"] for each in rows if each["type"] == "run"]
        assert run["resume"] is True
        numbers = [each["history"]["step"]["num"] for each in rows if each["type"] == "history"]
        steps = [each["history"]["item"]["train/step"] for each in rows if "history" in each]
        assert list(map(int, numbers)) == [0, 1, 2, 3, 4, 5]
        assert steps == [49, 50, 50, 99, 100, 100]


def test_the_mirror_shows_how_fast_the_run_is_where_it_is_known(info):
    tracker = Wandb("offline")
    tracker.start(info)
    tracker.segment(replace(snapshot(), mfu=0.5, goodput=0.9, memory_bytes=2.0**30))
    tracker.finish(Summary(details={"goodput": 0.9}))
    items = [each["history"]["item"] for each in records(info.directory) if "history" in each]
    (last,) = [item for item in items if "pop/best" in item]
    assert (last["mfu"], last["goodput"], last["memory_bytes"]) == (0.5, 0.9, 2**30)
    assert "step_seconds" not in last and last["tokens_per_second"] == 21_300


def test_rows_that_the_server_has_are_not_sent_again_after_a_rewind(info, monkeypatch):
    fake, sent = FakeWandb(False), []
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    opened = fake.init

    def init(**arguments):
        run = opened(**arguments)
        run.step, run.log = 4, lambda row, step: sent.append(step)  # it has rows 0 to 3
        return run

    monkeypatch.setattr(fake, "init", init)
    tracker = Wandb("online")
    tracker.start(info)
    tracker.segment(replace(snapshot(50), first_row=0))
    tracker.segment(replace(snapshot(100), first_row=3))
    tracker.finish(Summary())
    assert fake.opened[0]["resume"] == "allow" and sent == [4, 5]
