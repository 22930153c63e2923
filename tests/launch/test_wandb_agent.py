"""Trials of a sweep on two processes: one asks, both run; JAX finds them by Slurm's variables."""

import os
import re
from typing import Any

import pytest
import yaml

from jaxhpo.cli.main import COMMANDS
from jaxhpo.cli.options import parse
from jaxhpo.config import TrainRun
from tests.launch.conftest import LAUNCH, SRUN, StandIns
from tests.launch.test_wandb_sweep import drawn

SWEEP: dict[str, Any] = yaml.safe_load((LAUNCH / "wandb-sweep-hosts.yaml").read_text())

AGENT = """
[[ $1 == agent ]] || exit 1
export WANDB_SWEEP_ID=s1
for run in r1; do
    WANDB_RUN_ID=$run python "$JAXHPO_TRIAL" trial --version "--space=x=log(1e-4, 1)" || exit
done
"""
"""Does what `wandb agent` does: starts the sweep's command with the ids of sweep and run."""


def test_process_0_asks_and_all_processes_run(stand_ins: StandIns) -> None:
    stand_ins.add("srun", SRUN)
    stand_ins.add("scontrol")
    stand_ins.add("wandb", AGENT)
    job = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2"}
    words = ("agent", "me/project/s1", "--count", "1")
    flags = {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    status, said = stand_ins.run("slurm.sbatch", "--", *words, **job, **flags)
    logs = [
        (stand_ins.work / f"logs/agent/{os.getpid()}-{task}.log").read_text() for task in range(2)
    ]
    assert status == 0, (said, logs)
    assert stand_ins.calls("wandb") == [["agent", "--forward-signals", *words[1:]]]
    trial = "--version --space=x=log(1e-4, 1) --out=runs/sweep-s1/r1 --resume=auto"
    for log in logs:
        assert log.count(f"launch: jaxhpo {trial}\n") == 1, logs
        assert re.search(r"^jaxhpo \d", log, re.MULTILINE), "it ran"


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
