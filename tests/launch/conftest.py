"""Stand-ins on the PATH for what launchers call: each records its words and does as it is told."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "launch"

SAVES = """
trap 'sleep 0.2; echo saved; exit 75' TERM
echo on
for ((tick = 0; tick < 600; tick++)); do sleep 0.05; done
"""
"""A `jaxhpo` that trains for half a minute, and saves when it is asked to stop."""

_RECORDER = """#!/usr/bin/env bash
printf '%s\\0' "${0##*/}" "$@" $'\\1' >> "$CALLS"
"""

SRUN = """
output=/dev/stdout
while [[ $1 == --* ]]; do [[ $1 != --output=* ]] || output=${1#*=}; shift; done
tasks=()
for ((i = 0; i < SLURM_NTASKS; i++)); do
    log=${output//%j/$SLURM_JOB_ID}
    SLURM_PROCID=$i SLURM_LOCALID=$i SLURM_NODEID=0 SLURM_STEP_ID=0 SLURM_STEP_NUM_NODES=1 \\
        SLURM_STEP_NODELIST=localhost SLURM_STEP_NUM_TASKS=$SLURM_NTASKS \\
        "$@" >> "${log//%t/$i}" 2>&1 &
    tasks+=($!)
done
trap 'kill -TERM "${tasks[@]}"' TERM
worst=0
for task in "${tasks[@]}"; do
    while :; do
        status=0
        wait "$task" || status=$?
        kill -0 "$task" 2> /dev/null || break
    done
    ((status <= worst)) || worst=$status
done
exit "$worst"
"""
"""Starts the tasks of one node with the variables that Slurm's own sets, and waits for them."""


@dataclass
class StandIns:
    """A folder at the head of the PATH, a working folder with `launch` in it, and the calls."""

    path: Path

    @property
    def work(self) -> Path:
        return self.path / "work"

    def add(self, name: str, does: str = "") -> None:
        """A command that records its words and runs some lines of bash."""
        file = self.path / "bin" / name
        file.write_text(f"{_RECORDER}{does}\n")
        file.chmod(0o755)

    def environment(self, **variables: str) -> dict[str, str]:
        path = f"{self.path / 'bin'}:{os.environ['PATH']}"
        calls = str(self.path / "calls")
        return {**os.environ, "PATH": path, "CALLS": calls, **variables}

    @contextmanager
    def started(
        self, script: str, *words: str, **variables: str
    ) -> Iterator[subprocess.Popen[str]]:
        """A launcher in a process group of its own, of which nothing is left behind."""
        process = subprocess.Popen(
            ["bash", f"launch/{script}", *words],
            cwd=self.work,
            env=self.environment(**variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        with process:
            try:
                yield process
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    def run(self, script: str, *words: str, **variables: str) -> tuple[int, str]:
        """The exit status and what was printed."""
        with self.started(script, *words, **variables) as process:
            said, _ = process.communicate(timeout=120)
        return process.returncode, said

    def calls(self, name: str | None = None) -> list[list[str]]:
        """Words of each call, in order; of one command alone without its name."""
        recorded = self.path / "calls"
        text = recorded.read_text() if recorded.exists() else ""
        found = [call.split("\0")[:-1] for call in text.split("\1\0")[:-1]]
        return found if name is None else [words for first, *words in found if first == name]


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIns:
    """With a `jaxhpo` that does nothing, and no GPU."""
    for name in ("CUDA_VISIBLE_DEVICES", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    made = StandIns(tmp_path)
    (tmp_path / "bin").mkdir()
    made.work.mkdir()
    (made.work / "launch").symlink_to(LAUNCH)
    made.add("jaxhpo")
    made.add("nvidia-smi", "exit 9")
    return made
