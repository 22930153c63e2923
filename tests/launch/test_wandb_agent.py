"""Trials of a sweep on two processes: one asks, both run; JAX finds them by Slurm's variables."""

import os
from typing import Any

import pytest
import yaml

from jaxhpo.cli.main import COMMANDS
from jaxhpo.cli.options import parse
from jaxhpo.config import TrainRun
from jaxhpo.record.history import history
from tests.launch.conftest import LAUNCH, SRUN, StandIns
from tests.launch.test_wandb_sweep import drawn

SWEEP: dict[str, Any] = yaml.safe_load((LAUNCH / "wandb-sweep-hosts.yaml").read_text())

TINY = (
    "search", "--scheduler=random", "--trials=2", "--steps=2", "--schedule.warmup-steps=1",
    "--data.source=synthetic",
    "--model.num-layers=1", "--model.d-model=8", "--model.num-heads=1", "--model.context=8",
    "--data.batch-size=2", "--tracker.diagnose-every=0", "--execution.compilation-cache=false",
)  # fmt: skip
AGENT = f"""
[[ $1 == agent ]] || exit 1
export WANDB_SWEEP_ID=s1 WANDB_RUN_ID=r1
python "$JAXHPO_TRIAL" trial {" ".join(TINY)}
"""
"""Does what `wandb agent` does: starts the sweep's command with the ids of sweep and run."""


def test_process_0_asks_and_all_processes_run(stand_ins: StandIns) -> None:
    stand_ins.add("srun", SRUN)
    stand_ins.add("scontrol")
    stand_ins.add("wandb", AGENT)
    number = str(os.getpid())  # JAX makes its port of it
    job = {"SLURM_JOB_ID": number, "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2"}
    words = ("agent", "me/project/s1", "--count", "1")
    flags = {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    status, said = stand_ins.run("slurm.sbatch", "--", *words, **job, **flags)
    logs = [(stand_ins.work / f"logs/agent/{number}-{task}.log").read_text() for task in range(2)]
    assert status == 0, (said, logs)
    assert stand_ins.calls("wandb") == [["agent", "--forward-signals", *words[1:]]]
    trial = " ".join([*TINY, "--out=runs/sweep-s1/r1", "--resume=auto"])
    assert all(log.count(f"launch: jaxhpo {trial}\n") == 1 for log in logs), logs
    finished = [log.count("finished  best") for log in logs]
    assert finished == [1, 0], "both trained, and process 0 talks for them"
    past = history(stand_ins.work / "runs/sweep-s1/r1")
    assert past.finish and past.start and past.start["config"]["steps"] == 2


def test_what_the_agent_starts_is_a_trial_that_trains() -> None:
    command = SWEEP["command"]
    assert command[:4] == ["${env}", "${interpreter}", "${envvar:JAXHPO_TRIAL}", "trial"]
    values = {name: drawn(parameter) for name, parameter in SWEEP["parameters"].items()}
    options = [word for word in command[5:] if word != "${args}"]
    options += [f"--{name}={value}" for name, value in values.items()]
    assert command[4] in COMMANDS and command[-1] == "${args}"
    config = parse(TrainRun, options, "jaxhpo train")
    assert config.tracker.wandb == "online" and config.steps == values["steps"]
    for name in ("program", "method", "metric", "parameters", "command"):
        assert name in SWEEP
    assert SWEEP["metric"] == {"name": "pop/best", "goal": "minimize"}
    assert (LAUNCH.parent / SWEEP["program"]).exists()


@pytest.mark.parametrize("words", [("agent",), ("other", "x")])
def test_an_agent_without_a_sweep_is_refused(words: tuple[str, ...]) -> None:
    from launch.wandb_agent import MISTAKE, main

    assert main(words) == MISTAKE
