"""SkyPilot: the file's fields, what the launcher asks of `sky`, and what a node does."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.launch.conftest import LAUNCH, StandIns

WORDS = ("pbt", "--out", "/runs/a", "--space", "schedule.peak_lr=log(1e-4, 1e-1)", "it's=$HOME")
TASK = yaml.safe_load((LAUNCH / "sky.yaml").read_text())
FIELDS = {"name", "num_nodes", "resources", "workdir", "envs", "secrets", "setup", "run"}
"""Of a task, in SkyPilot 0.14."""


def test_the_task_has_known_fields_and_no_secret() -> None:
    assert set(TASK) == FIELDS and isinstance(TASK["num_nodes"], int)
    assert set(TASK["resources"]) == {"accelerators", "disk_size", "job_recovery"}
    assert 75 in TASK["resources"]["job_recovery"]["recover_on_exit_codes"]
    assert TASK["secrets"] == {"WANDB_API_KEY": ""}
    assert all(isinstance(value, str) for value in TASK["envs"].values())


@pytest.mark.parametrize("managed", [False, True])
def test_the_launcher_hands_over_words_and_key(managed: bool, stand_ins: StandIns) -> None:
    stand_ins.add("sky")
    own = ("--managed",) if managed else ("--gpus", "H100:8", "--num-nodes=2")
    assert stand_ins.run("sky.sh", "a", *own, "--", *WORDS, WANDB_API_KEY="the-key")[0] == 0
    (call,) = stand_ins.calls("sky")
    start = ["jobs", "launch", "--name=a"] if managed else ["launch", "--cluster=a"]
    rest = [] if managed else list(own)
    assert call[: len(start)] == start and call[-1] == "launch/sky.yaml"
    assert call[len(start) : -3] == ["--yes", *rest, "--secret", "WANDB_API_KEY"]
    assert not any("the-key" in word for word in call), "the name alone: sky reads the variable"
    words = call[-2].removeprefix("JAXHPO_WORDS=")
    ran = node(stand_ins, words, SKYPILOT_NUM_NODES="1")
    assert ran == [[*WORDS, "--resume", "auto"]]


def test_each_node_is_told_who_it_is(stand_ins: StandIns) -> None:
    several = {"SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2"}
    (words,) = node(stand_ins, "pbt --out /runs/a", SKYPILOT_NODE_RANK="1", **several)
    assert words[-6:] == [
        "--distributed.coordinator-address", "10.0.0.1:1234",
        "--distributed.num-processes", "2", "--distributed.process-id", "1",
    ]  # fmt: skip


def node(stand_ins: StandIns, words: str, **variables: str) -> list[list[str]]:
    """Words of `jaxhpo` once a node has run the task."""
    env = stand_ins.environment(JAXHPO_WORDS=words, WANDB_API_KEY="", **variables)
    subprocess.run(["bash", "-c", TASK["run"]], cwd=stand_ins.work, env=env, check=True)
    return stand_ins.calls("jaxhpo")


def test_skypilot_itself_takes_the_task() -> None:
    if (sky := shutil.which("sky")) is None:
        pytest.skip("skypilot is not installed (pip install skypilot: 317 MB)")
    program = "import sky, sys; print(sky.Task.from_yaml(sys.argv[1]).num_nodes)"
    ran = subprocess.run(
        [Path(sky).with_name("python"), "-c", program, str(LAUNCH / "sky.yaml")],
        capture_output=True, text=True,
    )  # fmt: skip
    assert ran.stdout.endswith("1\n"), ran.stderr
