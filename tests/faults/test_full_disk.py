"""A disk that fills up in the middle of a run: one line, nothing committed is lost."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jaxhpo.record.history import history
from tests.faults.test_killed_runs import finished, kinds, outcome, start


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB in memory: room for a whole run and its report."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(place)]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a small file system can't be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(place: Path, leave: int) -> Path:
    """A file that leaves `leave` bytes free."""
    filler = place / "filler"
    stat = os.statvfs(place)
    filler.write_bytes(b"\0" * max(stat.f_bavail * stat.f_frsize - leave, 0))
    return filler


def test_a_full_disk_is_one_line_and_the_run_goes_on_to_the_same_bits(
    small_disk: Path, tmp_path: Path
) -> None:
    whole, run = tmp_path / "whole", small_disk / "run"
    finished(start(whole, tmp_path))
    process = start(run, tmp_path)
    while kinds(run).count("report") < 3:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    committed = history(run).checkpoints[-1]["index"]
    filler = fill(small_disk, leave=8192)
    process = start(run, tmp_path)
    _, error = process.communicate(timeout=120)
    assert process.returncode in (1, 2)
    last = error.strip().splitlines()[-1]
    assert "the disk is full" in last and "Traceback" not in error
    filler.unlink()
    assert history(run).checkpoints[-1]["index"] >= committed
    finished(start(run, tmp_path))
    for found, expected in zip(outcome(run), outcome(whole), strict=True):
        assert found == expected
