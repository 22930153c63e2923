"""The TPU launcher against a `gcloud` that records its words and is one host itself."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.launch.conftest import SAVES, StandIns

GCLOUD = """
case "$*" in
    *" describe "*)
        state=$(head -n 1 "$TPU/states")
        (($(wc -l < "$TPU/states") == 1)) || sed -i 1d "$TPU/states"
        [[ $state != NONE ]] || { echo "ERROR: NOT_FOUND: no such resource" >&2; exit 1; }
        echo "$state"
        ;;
    *" tpu-vm scp "*) cp "$5" "$TPU/host" ;;
    *" tpu-vm ssh "*)
        for word; do
            [[ $word != --command=* ]] || (cd "$TPU/host" && bash -c "${word#--command=}") || exit
        done
        ;;
    *"secrets versions access"*) echo "the-key" ;;
esac
"""
WORDS = ("pbt", "--out", "/mnt/runs/a", "--space", "schedule.peak_lr=log(1e-4, 1e-1)", "it's=$HOME")
TPU = ("my-tpu", "--zone", "us-central1-a", "--type=v5litepod-16")


@pytest.fixture
def tpu(stand_ins: StandIns, monkeypatch: pytest.MonkeyPatch) -> StandIns:
    """Its host has all that `install` needs; what states it goes through is up to the test."""
    (stand_ins.path / "host").mkdir()
    monkeypatch.setenv("TPU", str(stand_ins.path))
    monkeypatch.setenv("JAXHPO_POLL_SECONDS", "0")
    stand_ins.add("gcloud", GCLOUD)
    for name in ("python3", "sudo", "mountpoint"):
        stand_ins.add(name)
    stand_ins.add("curl", "echo 1")
    states(stand_ins, "ACTIVE")
    return stand_ins


def states(tpu: StandIns, *names: str) -> None:
    (tpu.path / "states").write_text("".join(f"{name}\n" for name in names))


def test_a_slice_is_requested_waited_for_and_given_the_words_as_they_are(tpu: StandIns) -> None:
    states(tpu, "NONE", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE")
    tpu.add("jaxhpo", 'echo "host $JAXHPO_PROCESS"')
    words = (*TPU, "--spot", "--project", "p", "--", *WORDS)
    status, said = tpu.run("tpu-pod.sh", *words)
    assert status == 0 and "host 1\n" in said
    assert tpu.calls("jaxhpo") == [[*WORDS, "--resume", "auto"]]
    gcloud = tpu.calls("gcloud")
    at = ["--zone=us-central1-a", "--project=p"]
    resources = ["compute", "tpus", "queued-resources"]
    described = [*resources, "describe", "my-tpu", "--format=value(state.state)", *at, "--quiet"]
    created = [
        *resources, "create", "my-tpu", "--node-id=my-tpu", "--accelerator-type=v5litepod-16",
        "--runtime-version=v2-alpha-tpuv5-lite", "--spot", *at, "--quiet",
    ]  # fmt: skip
    assert gcloud[:5] == [described, created, described, described, described]
    scp, install, follow = gcloud[5:]
    assert scp[:4] == ["compute", "tpus", "tpu-vm", "scp"]
    assert scp[5:] == ["my-tpu:", *at, "--worker=all", "--quiet"]
    for ssh in (install, follow):
        assert ssh[:7] == ["compute", "tpus", "tpu-vm", "ssh", "my-tpu", *at]
        assert (ssh[7], ssh[9:]) == ("--worker=all", ["--quiet"])
    host = tpu.path / "host" / "jaxhpo"
    assert (host / "jaxhpo" / "cli" / "main.py").exists() and not (host / ".git").exists()


def test_a_slice_that_is_taken_away_is_requested_again_and_the_run_carried_on(
    tpu: StandIns,
) -> None:
    tpu.add(
        "jaxhpo",
        '[[ ! -e $TPU/again ]] || exit 0; touch "$TPU/again"; '
        'printf "SUSPENDED\\nSUSPENDED\\nNONE\\nACTIVE\\n" > "$TPU/states"; exit 75',
    )
    assert tpu.run("tpu-pod.sh", *TPU, "--", *WORDS)[0] == 0
    assert tpu.calls("jaxhpo") == [[*WORDS, "--resume", "auto"]] * 2
    did = [words[3] for words in tpu.calls("gcloud") if words[2] == "queued-resources"]
    assert [word for word in did if word != "describe"] == ["delete", "create"]


def test_what_ends_on_a_slice_that_is_there_ends_here(tpu: StandIns) -> None:
    tpu.add("jaxhpo", "exit 3")
    assert tpu.run("tpu-pod.sh", *TPU, "--", *WORDS)[0] == 3
    assert len(tpu.calls("jaxhpo")) == 1
    tpu.add("gcloud", 'echo "ERROR: no permission" >&2; exit 1')
    status, said = tpu.run("tpu-pod.sh", *TPU, "--", *WORDS)
    assert (status, said) == (1, "ERROR: no permission\n"), "nothing is created when unsure"


def test_a_run_outlives_its_connection_is_followed_again_and_stopped(tpu: StandIns) -> None:
    tpu.add("jaxhpo", SAVES)
    with tpu.started("tpu-pod.sh", *TPU, "--", *WORDS) as first:
        heard_of(first)
        os.killpg(first.pid, signal.SIGKILL)
    with tpu.started("tpu-pod.sh", *TPU, "--", *WORDS) as second:
        heard_of(second)
        other = tpu.run("tpu-pod.sh", *TPU, "--", "train", "--out", "b")
        assert other[0] == 2 and "another run is on this TPU" in other[1]
        assert tpu.run("tpu-pod.sh", *TPU[:3], "--stop")[0] == 0
        said, _ = second.communicate(timeout=30)
    assert second.returncode == 75 and "saved\n" in said
    assert len(tpu.calls("jaxhpo")) == 1


def heard_of(process: subprocess.Popen[str]) -> None:
    """Waits until the run has said something."""
    assert process.stdout
    while (line := process.stdout.readline()) != "on\n":
        assert line, "it ended before"


def test_the_wandb_key_comes_from_a_secret_and_is_in_no_file_and_on_no_command_line(
    tpu: StandIns,
) -> None:
    tpu.add("jaxhpo", '[[ $WANDB_API_KEY == the-key ]] && echo "has it"')
    status, said = tpu.run("tpu-pod.sh", *TPU, "--wandb-secret", "wandb", "--", *WORDS)
    assert status == 0 and "has it\n" in said
    latest = ["secrets", "versions", "access", "latest", "--secret=wandb"]
    assert latest in tpu.calls("gcloud")
    assert not any("the-key" in word for call in tpu.calls() for word in call)
    left = [path for path in (tpu.path / "host").rglob("*") if path.is_file()]
    assert left and not any(b"the-key" in path.read_bytes() for path in left)


def test_gcloud_itself_knows_all_options(tpu: StandIns, tmp_path: Path) -> None:
    own = [each for each in os.get_exec_path() if "stand" not in each]
    if (gcloud := shutil.which("gcloud", path=os.pathsep.join(own))) is None:
        pytest.skip("gcloud is not installed")
    states(tpu, "FAILED", "NONE", "ACTIVE")
    words = ("--spot", "--project=p", "--wandb-secret=s", "--", *WORDS)
    assert tpu.run("tpu-pod.sh", *TPU, *words)[0] == 0
    kinds = {tuple(words[:4]): words for words in tpu.calls("gcloud")}
    assert len(kinds) == 6
    nobody = {
        **os.environ,
        "CLOUDSDK_CONFIG": str(tmp_path / "gcloud"),
        "CLOUDSDK_CORE_PROJECT": "p",
    }
    for words in kinds.values():
        tried = subprocess.run([gcloud, *words], env=nobody, capture_output=True, text=True)
        assert "active account" in tried.stderr, tried.stderr
