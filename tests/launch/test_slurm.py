"""The batch script against stand-ins: a `srun` that starts tasks, a `scontrol` that is told."""

import pytest

from tests.launch.conftest import LAUNCH, SAVES, SRUN, StandIns

WORDS = ("pbt", "--out", "runs/a")
JOB = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2"}


@pytest.fixture
def slurm(stand_ins: StandIns) -> StandIns:
    stand_ins.add("srun", SRUN)
    stand_ins.add("scontrol")
    return stand_ins


def test_a_job_that_ends_is_not_queued_again(slurm: StandIns) -> None:
    slurm.add("jaxhpo", 'echo "task $SLURM_PROCID"')
    assert slurm.run("slurm.sbatch", "--", *WORDS, **JOB)[0] == 0
    assert slurm.calls("jaxhpo") == [[*WORDS, "--resume", "auto"]] * 2
    assert slurm.calls("scontrol") == []
    for task in range(2):
        assert (slurm.work / f"logs/a/7-{task}.log").read_text() == f"task {task}\n"
    (words,) = slurm.calls("srun")
    assert words[-4:] == ["launch/process.sh", *WORDS]
    assert {"--kill-on-bad-exit=0", "--wait=180"} < set(words), "process 0 may still be writing"


@pytest.mark.parametrize(
    ("status", "restarts", "queued"),
    [(75, "0", True), (75, "100", False), (2, "0", False), (137, "0", False)],
)
def test_only_what_was_stopped_and_saved_is_queued_again(
    status: int, restarts: str, queued: bool, slurm: StandIns
) -> None:
    slurm.add("jaxhpo", f"((SLURM_PROCID)) || exit {status}")
    found, _ = slurm.run("slurm.sbatch", "--", *WORDS, **JOB, SLURM_RESTART_COUNT=restarts)
    assert found == status
    assert slurm.calls("scontrol") == ([["requeue", "7"]] if queued else [])


def test_a_job_that_is_preempted_waits_for_its_tasks_and_is_queued_again(slurm: StandIns) -> None:
    # the batch shell and the tasks are told at once, and tasks take their time to save
    begun = "until [[ -s logs/a/7-0.log && -s logs/a/7-1.log ]]; do sleep .05; done"
    slurm.add("srun", SRUN.replace("worst=0", f"{begun}; kill -TERM $PPID ${{tasks[@]}}; worst=0"))
    slurm.add("jaxhpo", SAVES)
    assert slurm.run("slurm.sbatch", "--", *WORDS, **JOB)[0] == 75
    assert slurm.calls("scontrol") == [["requeue", "7"]]
    assert (slurm.work / "logs/a/7-1.log").read_text() == "on\nsaved\n"


def test_gpus_that_no_task_would_use_are_refused(slurm: StandIns) -> None:
    job = {**JOB, "SLURM_GPUS_ON_NODE": "8"}
    status, said = slurm.run("slurm.sbatch", "--", *WORDS, **job)
    assert status == 2 and "sbatch --ntasks-per-node=8" in said
    assert slurm.run("slurm.sbatch", "--", *WORDS, **{**job, "SLURM_NTASKS": "1"})[0] == 0


def test_the_job_asks_for_a_signal_before_the_limit_and_may_be_queued_again() -> None:
    lines = (LAUNCH / "slurm.sbatch").read_text().splitlines()
    asked = [line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH")]
    assert {"--signal=TERM@120", "--requeue", "--open-mode=append"} <= set(asked)
    commands = [i for i, line in enumerate(lines) if line and not line.startswith("#")]
    assert max(i for i, line in enumerate(lines) if line.startswith("#SBATCH")) < commands[0]
