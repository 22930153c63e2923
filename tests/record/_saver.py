"""Saves in a loop until killed, a line after each commit; run by test_checkpoints_killed.py."""

import os
import sys
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"

import numpy as np
import orbax.checkpoint  # noqa: F401 - the parent forks after this, so that no child imports it again

from jaxhpo.record import CheckpointConfig, RunDirectory, Store


def content(index: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(index)
    return {f"leaf{n}": rng.normal(size=(8, 500)).astype(np.float32) for n in range(6)}


def save_until_killed(path: Path, out: int) -> None:
    run = RunDirectory(path)
    run.lock()

    def committed(index: int, size: int, seconds: float, digest: str) -> None:
        os.write(out, f"{index} {seconds}\n".encode())

    with Store(run, CheckpointConfig(keep_last=2), on_commit=committed) as store:
        first = max(store.indices(), default=-1) + 1
        os.write(out, b"ready 0\n")
        for index in range(first, first + 10_000):
            store.save(index, content(index), {"step": index}, wait=True)


if __name__ == "__main__":  # a fork server: each line names a run directory
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                os.write(1, f"child {os.getpid()}\n".encode())  # before all else that it says
                save_until_killed(Path(line.strip()), 1)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        os.write(1, f"ended {status}\n".encode())
