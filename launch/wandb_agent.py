"""Trials of a W&B sweep on several hosts: process 0 asks for each, all processes train it.

    launch/process.sh agent ENTITY/PROJECT/SWEEP [options of `wandb agent`]

is started once in each process of a job, by any launcher. Process 0 runs `wandb agent`, and the
sweep's command (wandb-sweep-hosts.yaml) is this file again:

    python launch/wandb_agent.py trial train --schedule.peak_lr=0.003 ...

The other processes wait in a trial without words. In a trial all processes join by jax.distributed,
process 0 broadcasts its words, and each goes on as `jaxhpo` with them; a trial that crashes takes
nothing else down. The run directory of a trial is named after its W&B run, so that one that W&B
gives out again is carried on. SIGTERM is passed on: the trial is saved, and all end with status 75.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType

MISTAKE, OVER, RESUME_ME = 2, 64, 75

NUMBERS = (
    "JAXHPO_PROCESS",
    "SLURM_PROCID",
    "OMPI_COMM_WORLD_RANK",
    "TPU_WORKER_ID",
    "JOB_COMPLETION_INDEX",
)
"""Variables in which launchers say which process this is; asked before JAX may be started."""

WAIT_SECONDS = 30 * 24 * 3600
"""How long a process waits for the next trial; whoever started it ends it sooner."""
JOIN_SECONDS = 600
"""How long process 0 waits for the others to join a trial."""


def main(argv: Sequence[str]) -> int:
    task, *words = argv or [""]
    if task == "trial":
        return trial(words)
    if task != "agent" or not words:
        print("launch: allowed: agent ENTITY/PROJECT/SWEEP, or trial WORDS", file=sys.stderr)
        return MISTAKE
    return Job().agent(words) if number() == 0 else Job().wait_for_trials()


def number() -> int:
    """Which process of the job this is."""
    return int(next((os.environ[name] for name in NUMBERS if os.environ.get(name)), "0"))


# what goes on for the whole sweep


class Job:
    """A process of the job between trials: it never starts JAX, whose devices are the trials'."""

    def __init__(self) -> None:
        self.stopped = False
        self._child: subprocess.Popen[bytes] | None = None
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, self._stop)

    def agent(self, words: list[str]) -> int:
        """Process 0: the agent of the sweep, and then the end of the others' waiting."""
        os.environ["JAXHPO_TRIAL"] = os.path.abspath(__file__)
        status = self._run(["wandb", "agent", "--forward-signals", *words])
        if self.stopped:
            return RESUME_ME
        self._run([sys.executable, __file__, "trial"])
        return status

    def wait_for_trials(self) -> int:
        """Any other process: one trial after another, until process 0 has no more."""
        while not self.stopped:
            if self._run([sys.executable, __file__, "trial"]) == OVER:
                return 0
            time.sleep(1)  # one that can't even start must not spin
        return RESUME_ME

    def _run(self, command: list[str]) -> int:
        self._child = subprocess.Popen(command)
        if self.stopped:  # the signal came just before
            self._child.terminate()
        return self._child.wait()

    def _stop(self, signum: int, frame: FrameType | None) -> None:
        self.stopped = True
        if self._child is not None and self._child.poll() is None:
            self._child.terminate()


# what is started anew for each trial


def trial(words: list[str]) -> int:
    """Joins the others and goes on as `jaxhpo` with the words of process 0."""
    import jax

    join()
    if jax.process_index() != number():
        mine = f"JAX's process {jax.process_index()} was started as {number()}"
        print(f"launch: {mine}; set JAXHPO_PROCESS to JAX's number", file=sys.stderr)
        return MISTAKE
    words = shared(with_run_directory(words))
    if not words:
        return OVER
    print(f"launch: jaxhpo {' '.join(words)}", flush=True)
    from jaxhpo.cli.main import main as jaxhpo

    status = jaxhpo(words)
    return 0 if status == RESUME_ME else status  # stopped on request is no failure to an agent


def join() -> None:
    """Joins the processes of the job; alone where nothing says that there are others."""
    import jax

    wait = JOIN_SECONDS if number() == 0 else WAIT_SECONDS
    if address := os.environ.get("JAXHPO_COORDINATOR"):
        jax.distributed.initialize(
            address, int(os.environ["JAXHPO_PROCESSES"]), number(), initialization_timeout=wait
        )
        return
    try:
        jax.distributed.initialize(initialization_timeout=wait)
    except ValueError as error:
        if "should be defined" not in str(error) and "must be defined" not in str(error):
            raise


def with_run_directory(words: list[str]) -> list[str]:
    """The words of a trial with `--out`, where they have none."""
    given = {word.partition("=")[0] for word in words}
    name = os.environ.get("WANDB_RUN_ID")
    if not words or not name or "--out" in given:
        return words
    sweep = os.environ.get("WANDB_SWEEP_ID", "")
    folder = os.path.join(os.environ.get("JAXHPO_RUNS", "runs"), f"sweep-{sweep}", name)
    return [*words, f"--out={folder}", *([] if "--resume" in given else ["--resume=auto"])]


def shared(words: list[str]) -> list[str]:
    """Process 0's words, in every process."""
    import jax
    import numpy as np
    from jax.experimental import multihost_utils

    if jax.process_count() == 1:
        return words
    text = np.frombuffer(json.dumps(words).encode(), np.uint8)
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    mine = text if jax.process_index() == 0 else np.zeros(length, np.uint8)
    return json.loads(bytes(np.asarray(multihost_utils.broadcast_one_to_all(mine), np.uint8)))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
