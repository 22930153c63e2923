"""A writer killed at any moment loses no committed checkpoint and leaves none unreadable."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxhpo.record import RunDirectory, Store

SAVER = Path(__file__).with_name("_saver.py")
KILLS = 30


@pytest.fixture
def server():
    process = subprocess.Popen(
        [sys.executable, str(SAVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield process
    process.stdin.close()
    process.stdout.close()
    process.kill()
    process.wait()


def content(index):
    rng = np.random.default_rng(index)
    return {f"leaf{n}": rng.normal(size=(8, 500)).astype(np.float32) for n in range(6)}


def kill_after(server, path, saves, delay):
    """Start a writer, wait for some commits and a moment more, kill it; the commits it reported."""
    server.stdin.write(f"{path}\n")
    server.stdin.flush()
    child = int(server.stdout.readline().split()[1])
    committed = []
    while len(committed) < saves:
        word = server.stdout.readline().split()[0]
        if word not in ("ready", "child"):
            committed.append(int(word))
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    while (line := server.stdout.readline().split())[0] != "ended":
        committed.append(int(line[0]))
    assert int(line[1]) == signal.SIGKILL
    return committed


def test_thirty_kills_while_saving_and_deleting_lose_nothing(server, tmp_path):
    seed = 20_261_123
    moments = random.Random(seed)
    run = RunDirectory.create(tmp_path / "run")
    wanted = {
        name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in content(0).items()
    }
    interrupted = 0
    for kill in range(KILLS):
        committed = kill_after(server, run.path, moments.randint(1, 3), moments.uniform(0, 0.06))
        names = os.listdir(run.checkpoints)
        interrupted += any(name.startswith(("tmp-", "trash-")) for name in names)
        store = Store(run)
        listed = store.indices()
        # the newest two that were reported are there; one more may be: killed before it was said
        assert set(committed[-2:]) <= {*listed, *range(min(listed))}, (seed, kill)
        assert listed[-1] >= committed[-1], (seed, kill)
        for index in listed:
            restored = store.restore(index, wanted)
            for name, leaf in content(index).items():
                assert restored.state[name].tobytes() == leaf.tobytes(), (seed, kill, index)
        assert store.latest(wanted).skipped == ()
    assert interrupted >= 9, "the kills missed the saves: change the moments"
