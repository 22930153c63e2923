"""A run killed at any moment goes on from its last commit and ends with the same bits."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxhpo.record.history import history
from jaxhpo.record.log import LogError, read

SEED = 3
OPTIONS = [
    "--steps",
    "240",
    "--pbt.members",
    "3",
    "--pbt.interval",
    "6",
    "--data.source",
    "synthetic",
    "--data.batch-size",
    "2",
    "--data.eval-batches",
    "2",
    "--model.num-layers",
    "1",
    "--model.d-model",
    "16",
    "--model.num-heads",
    "2",
    "--model.context",
    "16",
    "--dropout.residual",
    "0.1",
    "--schedule.warmup-steps",
    "3",
    "--checkpoint.every-seconds",
    "0",
    "--tracker.console",
    "off",
    "--tracker.diagnose-every",
    "0",
    "--seed",
    "5",
    "--execution.devices",
    "2",
]


def start(
    run: Path, cache: Path, name: str = "pbt", options: list[str] = OPTIONS
) -> subprocess.Popen:
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "PJRT_NPROC": "2",
        "XDG_CACHE_HOME": str(cache),
    }
    command = [sys.executable, "-m", "jaxhpo", name, *options]
    return subprocess.Popen(
        [*command, "--out", str(run), "--resume", "auto"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def kinds(run: Path) -> list[str]:
    try:
        return [event["kind"] for event in read(run / "events.jsonl")]
    except (LogError, OSError):
        return []


def kill_when(process: subprocess.Popen, run: Path, kind: str, rng: random.Random) -> bool:
    """SIGKILL a moment after the log gains an event of `kind`; False if the run ended first."""
    log, wanted = run / "events.jsonl", f'"kind":"{kind}"'
    before = log.stat().st_size if log.exists() else 0
    skip = rng.randrange(3)
    while process.poll() is None:
        if log.exists():
            with open(log) as file:
                file.seek(before)
                seen = file.read().replace('": "', '":"').count(wanted)
            if seen > skip:
                time.sleep(rng.random() * (0.02 if kind == "saving" else 0.004))
                process.send_signal(signal.SIGKILL)
                process.communicate()
                return True
        time.sleep(0.001)
    return False


def moment(run: Path) -> set[str]:
    """What was in flight when the last writer died, read off the log."""
    events = read(run / "events.jsonl")
    last = max((i for i, event in enumerate(events) if event["kind"] == "rewind"), default=0)
    life = events[last:]
    indices = lambda kind: {event["index"] for event in life if event["kind"] == kind}
    found = set()
    if indices("saving") - indices("checkpoint"):
        found.add("saving")
    if indices("plan") - indices("report"):
        found.add("segment")
    return found


def finished(process: subprocess.Popen) -> None:
    _, error = process.communicate(timeout=200)
    assert process.returncode == 0, error


def outcome(run: Path) -> tuple:
    past = history(run)
    metrics = [(event["results"], event["curves"]) for event in past.reports]
    plans = [event["assignments"] for event in past.plans]
    weights = (run / "best" / "model.safetensors").read_bytes()
    return plans, metrics, past.finish["best"], weights


def test_ten_kills_change_no_bit_of_what_a_run_ends_with(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finished(start(whole, tmp_path))
    assert len(history(whole).exploits()) >= 4
    rng = random.Random(SEED)
    moments = []
    for attempt in range(14):
        kind = "saving" if attempt % 2 else "plan"
        process = start(killed, tmp_path)
        if not kill_when(process, killed, kind, rng):
            finished(process)
            break
        moments.append(moment(killed))
        if len(moments) == 11:
            break
    print("seed", SEED, "moments", moments)
    assert len(moments) >= 10
    assert sum("saving" in found for found in moments) >= 4
    assert sum("segment" in found for found in moments) >= 3
    finished(start(killed, tmp_path))
    assert history(killed).rewinds >= 10
    for found, expected in zip(outcome(killed), outcome(whole), strict=True):
        assert found == expected


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_saves_says_how_to_go_on_and_does(tmp_path: Path, number: int) -> None:
    run = tmp_path / "run"
    process = start(run, tmp_path)
    while "report" not in kinds(run):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 75
    assert f"jaxhpo resume {run}" in error
    past = history(run)
    assert past.checkpoints[-1]["index"] == past.reports[-1]["index"]
    finished(start(run, tmp_path))
    assert history(run).finish is not None


SEARCH = [
    *OPTIONS[6:],
    "--steps",
    "54",
    "--scheduler",
    "asha",
    "--trials",
    "18",
    "--search.places",
    "6",
    "--search.min-steps",
    "2",
    "--space",
    "schedule.peak_lr=log(1e-3, 1e-1)",
    "dropout.residual=uniform(0, 0.3)",
    "model.num_layers=choice(1, 2)",
]


def test_a_search_of_several_groups_survives_kills_to_the_bit(tmp_path: Path) -> None:
    """Rungs, pauses and two compile groups: killed between and inside segments and saves."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finished(start(whole, tmp_path, "search", SEARCH))
    assert any(event["paused"] for event in history(whole).plans)
    rng, kills = random.Random(SEED), 0
    for attempt in range(3):
        process = start(killed, tmp_path, "search", SEARCH)
        if not kill_when(process, killed, "saving" if attempt % 2 else "plan", rng):
            finished(process)
            break
        kills += 1
    assert kills >= 2
    finished(start(killed, tmp_path, "search", SEARCH))
    assert history(killed).rewinds == kills
    for found, expected in zip(outcome(killed), outcome(whole), strict=True):
        assert found == expected
