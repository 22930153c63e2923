"""A fine-tuning search killed at any moment, and one stopped on request, end with the same bits."""

import random
import signal
import time
from pathlib import Path

import numpy as np

from jaxhpo.record.history import history
from tests.faults.test_killed_runs import OPTIONS, finished, kill_when, kinds, outcome, start

BASE = [*OPTIONS[6:], "--steps", "6"]


def options(room: Path) -> list[str]:
    return [
        "--base",
        str(room / "base"),
        "--data",
        str(room / "train.tsv"),
        "--search",
        "random",
        "--trials",
        "6",
        "--search.segment",
        "2",
        "--metric",
        "accuracy",
        "--space",
        "epochs=choice(1, 2)",
        "data.batch_size=choice(2, 4)",
        "adapter.rank=int(1, 4)",
        "--adapter.max-rank",
        "4",
        "--adapter.rank",
        "2",
        "--adapter.dropout",
        "0.1",
        "--model.context",
        "16",
        "--data.eval-batches",
        "2",
        "--checkpoint.every-seconds",
        "0",
        "--tracker.console",
        "off",
        "--tracker.diagnose-every",
        "0",
        "--execution.devices",
        "2",
    ]


def prepared(room: Path) -> list[str]:
    rng = np.random.default_rng(0)
    rows = [f"{' '.join(rng.choice(['ba', 'du', 'ki'], 3))}\t{i % 2}" for i in range(60)]
    (room / "train.tsv").write_text("\n".join(["text\tlabel", *rows]) + "\n")
    finished(start(room / "base", room, "train", BASE))
    return options(room)


def test_kills_and_a_stop_change_no_bit_of_what_a_search_of_adapters_ends_with(
    tmp_path: Path,
) -> None:
    given = prepared(tmp_path)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finished(start(whole, tmp_path, "finetune", given))
    rng, kills = random.Random(5), 0
    for attempt in range(3):
        process = start(killed, tmp_path, "finetune", given)
        if not kill_when(process, killed, "saving" if attempt % 2 else "plan", rng):
            finished(process)
            break
        kills += 1
    assert kills >= 1
    process = start(killed, tmp_path, "finetune", given)
    seen = kinds(killed).count("report")
    while kinds(killed).count("report") <= seen and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=100)
    assert process.returncode == 0 or (process.returncode == 75 and "jaxhpo resume" in error)
    finished(start(killed, tmp_path, "finetune", given))
    assert history(killed).rewinds >= 1
    for found, expected in zip(outcome(killed), outcome(whole), strict=True):
        assert found == expected
    folder = "best/adapter/adapter_model.safetensors"
    assert (killed / folder).read_bytes() == (whole / folder).read_bytes()
