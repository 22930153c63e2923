"""The ready sweep file: what an agent would start is a command line that `jaxhpo train` takes."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from jaxhpo.cli.main import COMMANDS
from jaxhpo.cli.options import parse
from jaxhpo.config import TrainRun, traced_names
from jaxhpo.record.trackers.wandb import in_a_sweep

SWEEP = yaml.safe_load(
    (Path(__file__).parents[2] / "launch" / "wandb-sweep.yaml").read_text(encoding="utf-8")
)


def drawn(parameter: dict[str, Any]) -> Any:
    """A value that W&B might draw."""
    if "value" in parameter:
        return parameter["value"]
    if "values" in parameter:
        return parameter["values"][-1]
    return (parameter["min"] + parameter["max"]) / 2


def expanded(command: list[str], values: dict[str, Any]) -> list[str]:
    """The command as an agent starts it: its macros replaced as W&B documents them."""
    words: list[str] = []
    for word in command:
        if word == "${env}":
            words.append("/usr/bin/env")
        elif word == "${args}":
            words += [f"--{name}={value}" for name, value in values.items()]
        else:
            assert not word.startswith("${"), f"{word} is not replaced here"
            words.append(word)
    return words


def test_what_the_agent_starts_is_a_training_with_the_values_it_drew() -> None:
    values = {name: drawn(parameter) for name, parameter in SWEEP["parameters"].items()}
    env, program, command, *options = expanded(SWEEP["command"], values)
    assert (env, program, command) == ("/usr/bin/env", "jaxhpo", "train")
    assert command in COMMANDS
    config = parse(TrainRun, options, "jaxhpo train")
    assert config.schedule.peak_lr == values["schedule.peak_lr"]
    assert config.optimizer.weight_decay == values["optimizer.weight_decay"]
    assert config.dropout.residual == values["dropout.residual"]
    assert config.model.num_layers == values["model.num_layers"]
    assert config.steps == values["steps"]
    assert config.tracker.wandb == "online", "the agent's server must hear of it"
    assert len(values) == len(SWEEP["parameters"]) >= 4
    assert set(values) & set(traced_names(config))


def test_the_metric_is_one_that_the_mirror_writes() -> None:
    from inspect import getsource

    from jaxhpo.record.trackers import wandb

    assert f'"{SWEEP["metric"]["name"]}"' in getsource(wandb.Wandb._log)
    assert SWEEP["metric"]["goal"] == "minimize"


def test_a_run_of_a_sweep_is_the_run_that_the_agent_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "abc123")
    monkeypatch.delenv("WANDB_SWEEP_ID", raising=False)
    assert in_a_sweep() == ""
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    assert in_a_sweep() == "abc123"
