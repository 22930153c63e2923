"""JobSets for GKE: the files, what gke.py makes of them, and what it asks of kubectl and of xpk."""

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.launch.conftest import LAUNCH, ROOT, StandIns

WORDS = ("pbt", "--out", "/runs/a", "--space", "schedule.peak_lr=log(1e-4, 1e-1)")
FILES = ("gke-tpu.yaml", "gke-gpu.yaml")


def gke(stand_ins: StandIns, *words: str) -> tuple[int, str]:
    """The exit status of gke.py and all that it printed."""
    ran = subprocess.run(
        [sys.executable, str(LAUNCH / "gke.py"), *words],
        env=stand_ins.environment(), capture_output=True, text=True,
    )  # fmt: skip
    return ran.returncode, ran.stdout + ran.stderr


def check_jobset(jobset: dict[str, Any]) -> dict[str, Any]:
    """What every JobSet of a run must say. Its container."""
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    policy = jobset["spec"]["failurePolicy"]
    assert policy["maxRestarts"] >= 10, "a lost host starts all again"
    assert policy["rules"] == [
        {"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
    ]
    (replicated,) = jobset["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    assert job["parallelism"] == job["completions"] >= 1
    assert job["backoffLimit"] == 0, "one host can't start again by itself"
    pod = job["template"]["spec"]
    assert pod["restartPolicy"] == "Never" and pod["terminationGracePeriodSeconds"] >= 60
    (container,) = pod["containers"]
    (rule,) = job["podFailurePolicy"]["rules"]
    codes = rule["onExitCodes"]
    assert rule["action"] == "FailJob" and codes["containerName"] == container["name"]
    ends = set(codes["values"])
    given_up = {c for c in range(1, 256) if (c in ends) == (codes["operator"] == "In")}
    assert {2, 3} <= given_up and not {1, 75, 134, 137, 143} & given_up
    (chips,) = container["resources"]["limits"].items()
    assert chips[0] in ("google.com/tpu", "nvidia.com/gpu") and chips[1] >= 1
    mounts = {mount["name"] for mount in container.get("volumeMounts", ())}
    assert mounts == {volume["name"] for volume in pod.get("volumes", ())}
    return container


def check_no_secret(container: dict[str, Any]) -> None:
    key = next(v for v in container["env"] if v["name"] == "WANDB_API_KEY")
    assert set(key) == {"name", "valueFrom"} and set(key["valueFrom"]) == {"secretKeyRef"}


@pytest.mark.parametrize("name", FILES)
def test_the_files_are_whole_jobsets(name: str) -> None:
    jobset = yaml.safe_load((LAUNCH / name).read_text())
    container = check_jobset(jobset)
    check_no_secret(container)
    job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert job["completionMode"] == "Indexed"
    assert (ROOT / container["command"][0]).exists()
    if name == "gke-tpu.yaml":
        select = job["template"]["spec"]["nodeSelector"]
        assert set(select) == {
            "cloud.google.com/gke-tpu-accelerator",
            "cloud.google.com/gke-tpu-topology",
        }
    else:
        env = {variable["name"]: variable.get("value") for variable in container["env"]}
        jobs, name = jobset["spec"]["replicatedJobs"][0]["name"], jobset["metadata"]["name"]
        assert env["JAXHPO_COORDINATOR"] == f"{name}-{jobs}-0-0.{name}:1234"
        assert env["JAXHPO_PROCESSES"] == str(job["completions"])


def test_a_tpu_jobset_has_a_host_for_every_four_chips(stand_ins: StandIns) -> None:
    words = ("my-run", "--image", "r/jaxhpo:tpu", "--topology", "4x4", "--dry-run", "--", *WORDS)
    status, said = gke(stand_ins, *words)
    assert status == 0, said
    jobset = yaml.safe_load(said)
    container = check_jobset(jobset)
    check_no_secret(container)
    assert (container["image"], container["args"]) == ("r/jaxhpo:tpu", list(WORDS))
    assert container["resources"]["limits"] == {"google.com/tpu": 4}
    assert jobset["metadata"]["name"] == "my-run"
    assert jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["completions"] == 4


def test_a_gpu_jobset_says_who_is_who(stand_ins: StandIns) -> None:
    words = ("my-run", "--image=i", "--gpus=4", "--hosts=3", "--dry-run", "--", *WORDS)
    container = check_jobset(yaml.safe_load(gke(stand_ins, *words)[1]))
    env = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert env["JAXHPO_COORDINATOR"] == "my-run-hosts-0-0.my-run:1234"
    assert env["JAXHPO_PROCESSES"] == "3"
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 4}
    alone = ("my-run", "--image=i", "--gpus=4", "--dry-run", "--", *WORDS)
    container = check_jobset(yaml.safe_load(gke(stand_ins, *alone)[1]))
    assert "JAXHPO_COORDINATOR" not in {variable["name"] for variable in container["env"]}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--topology", "4y4"), "--topology 4y4; allowed"),
        (("--topology", "2x3"), "--chips 4 does not divide the 6 chips"),
        (("--hosts", "2"), "--hosts goes with --gpus"),
        (("--gpu", "2"), "unrecognized arguments: --gpu"),
    ],
)
def test_a_mistake_is_one_line(words: tuple[str, ...], said: str, stand_ins: StandIns) -> None:
    status, line = gke(stand_ins, "a", "--image", "i", *words, "--", *WORDS)
    assert status == 2 and said in line and line.count("\n") == 1
    status, line = gke(stand_ins, "a", "--image", "i", "--", "pbt")
    assert status == 2 and "no --out" in line


@pytest.mark.parametrize(
    ("before", "did"),
    [
        ("", ["get", "apply"]),
        ('{"status": {}}', ["get", "apply"]),
        ('{"status": {"terminalState": "Completed"}}', ["get", "delete", "apply"]),
    ],
)
def test_a_jobset_that_has_ended_is_replaced(
    before: str, did: list[str], stand_ins: StandIns
) -> None:
    says = f"[[ $2 != get ]] || echo '{before}'; [[ $2 != apply ]] || cat > \"$CALLS.yaml\""
    stand_ins.add("kubectl", says)
    status, said = gke(stand_ins, "my-run", "--image", "i", "--namespace", "n", "--", *WORDS)
    assert status == 0 and "logs --follow" in said
    calls = stand_ins.calls("kubectl")
    assert [words[1] for words in calls] == did and {words[0] for words in calls} == {
        "--namespace=n"
    }
    assert calls[0][2:] == ["jobset", "my-run", "--ignore-not-found", "--output=json"]
    check_jobset(yaml.safe_load((stand_ins.path / "calls.yaml").read_text()))


XPK = ("my-run", "--cluster", "c", "--project=p", "--zone", "us-central2-b",
       "--tpu-type=v5litepod-16", "--docker-image", "r/jaxhpo:tpu")  # fmt: skip


@pytest.mark.parametrize("ended", [False, True])
def test_xpk_is_given_one_command_and_what_to_restart_on(ended: bool, stand_ins: StandIns) -> None:
    said = "[XPK] my-run?\nmy-run  Finished" if ended else "[XPK] my-run?\nmy-run-2 Finished"
    stand_ins.add("xpk", f'[[ $2 != list ]] || echo "{said}"')
    assert stand_ins.run("xpk.sh", *XPK, "--spot", "--", *WORDS)[0] == 0
    calls = stand_ins.calls("xpk")
    assert [words[1] for words in calls] == ["list", *["delete"] * ended, "create"]
    where = ["--cluster=c", "--project=p", "--zone=us-central2-b"]
    command = f"exec launch/process.sh {shlex.join(WORDS)}"
    *options, given = (
        [word for word in calls[-1] if not word.startswith("--command=")],
        next(word for word in calls[-1] if word.startswith("--command=")),
    )
    assert shlex.split(given.removeprefix("--command=")) == shlex.split(command)
    assert options[0] == [
        "workload", "create", "--workload=my-run", *where, "--tpu-type=v5litepod-16",
        "--docker-image=r/jaxhpo:tpu", "--spot", "--max-restarts=20",
        "--restart-on-exit-codes=1,75", "--termination-grace-period-seconds=120",
    ]  # fmt: skip


def test_xpk_itself_makes_the_jobset(stand_ins: StandIns, tmp_path: Path) -> None:
    if shutil.which("xpk") is None:
        pytest.skip("xpk is not installed (pip install xpk: 221 MB)")
    manifest = tmp_path / "manifest.yaml"
    words = ("--dry-run", "--skip-validation", f"--output-manifest-file={manifest}", "--", *WORDS)
    status, said = stand_ins.run("xpk.sh", *XPK, *words, HOME=str(tmp_path))
    assert status == 0, said
    container = check_jobset(yaml.safe_load(manifest.read_text()))
    assert container["resources"]["limits"] == {"google.com/tpu": 4}
    (line,) = (line for line in container["command"][-1].splitlines() if "process.sh" in line)
    assert shlex.split(line.strip().removeprefix("(").partition(") &")[0]) == [
        "exec", "launch/process.sh", *WORDS,
    ]  # fmt: skip
    assert json.dumps(container).count("API_KEY") == 0
