"""A segment that hangs says where, once; one that compiles, or is only a little slow, does not."""

import os
import time
from pathlib import Path

import pytest

from jaxhpo.study.watchdog import Watchdog

USUAL = 0.01


def segment(watchdog: Watchdog, seconds: float = USUAL) -> None:
    with watchdog.segment(steps=5):
        time.sleep(seconds)


def usual(watchdog: Watchdog) -> None:
    for _ in range(4):
        segment(watchdog)


def hanging_here(watchdog: Watchdog) -> None:
    segment(watchdog, 40 * USUAL)


def test_a_segment_of_ten_times_the_median_dumps_all_stacks_to_the_run_and_to_stderr(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    watchdog = Watchdog(tmp_path, process=1, least=0.0)
    segment(watchdog, 40 * USUAL)  # the first one compiles
    usual(watchdog)
    assert not watchdog.path.exists()
    hanging_here(watchdog)
    said = watchdog.path.read_text()
    assert said.count("process 1: a segment of 5 steps") == 1 and "hanging_here" in said
    assert said in capfd.readouterr().err.replace("\r", "")
    usual(watchdog)
    assert watchdog.path.read_text() == said


def test_a_segment_that_compiles_is_not_slow(tmp_path: Path) -> None:
    watchdog = Watchdog(tmp_path, least=0.0)
    usual(watchdog)
    with watchdog.segment(steps=5):
        watchdog.excuse()
        time.sleep(40 * USUAL)
    assert not watchdog.path.exists()


def test_one_of_several_processes_ends_when_its_segment_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[int] = []
    monkeypatch.setattr(os, "_exit", ends.append)
    watchdog = Watchdog(tmp_path, ends_after=5 * USUAL, least=0.0)
    usual(watchdog)
    segment(watchdog, 13 * USUAL)  # slow, and over before it is ended
    time.sleep(10 * USUAL)
    assert not ends
    hanging_here(watchdog)
    assert ends == [1]
