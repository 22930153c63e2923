"""A trace of a few steps: written where it belongs, and the run beside it left as it is."""

import gzip
import json
from dataclasses import replace

import pytest

from jaxhpo.cli.main import main
from jaxhpo.config import to_toml
from jaxhpo.errors import UsageError
from jaxhpo.record.directory import RunDirectory
from jaxhpo.study.profiling import profile
from jaxhpo.study.runs import execute
from tests.study.conftest import tiny


@pytest.fixture(scope="module")
def traced(runs):
    """A run of 200 steps, and a trace of two steps of its config."""
    run = runs / "traced"
    execute(replace(tiny(200), out=str(run)))
    before = (run / "events.jsonl").read_bytes()
    return run, before, profile(run, steps=2)


def test_a_run_gets_a_trace_beside_its_log_and_stays_as_it_was(traced):
    run, before, found = traced
    assert (run / "events.jsonl").read_bytes() == before
    assert found.directory == run / "profile" and found.steps == 2
    assert list(found.directory.rglob("*.xplane.pb"))
    with gzip.open(found.trace) as file:
        events = json.load(file)["traceEvents"]
    assert any("segment" in event.get("name", "") for event in events)


def test_every_program_has_the_compilers_own_costs_with_one_round_of_the_steps(traced):
    costs = {cost.program: cost for cost in traced[2].costs}
    assert set(costs) == {"assemble", "train", "evaluate"}
    assert all(cost.flops and cost.bytes_accessed for cost in costs.values())
    # two rows at least are placed; one round of the steps, not the hundred that are compiled for
    assert 0.2 * traced[2].model_flops < costs["train"].flops < 5 * traced[2].model_flops
    text = str(traced[2])
    assert "ui.perfetto.dev" in text and "xprof --port" in text and "tensorboard --logdir" in text


def test_a_run_that_is_being_written_is_not_profiled(traced):
    with RunDirectory.open(traced[0]).lock(), pytest.raises(UsageError, match="is running"):
        profile(traced[0])


def test_the_command_takes_a_config_or_a_run_and_names_mistakes(traced, tmp_path, capsys):
    config = tmp_path / "tiny.toml"
    config.write_text(to_toml(tiny(200)))
    out = tmp_path / "new"
    words = ["profile", "train", "--config", str(config), "--out", str(out), "--trace-steps=1"]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["steps"] == 1 and found["directory"] == str(out / "profile")
    assert found["costs"][0]["flops"] > 0
    assert main(["profile", str(traced[0]), "--trace-steps", "0"]) == 2
    assert "--trace-steps 0; allowed: 1 to 10000" in capsys.readouterr().err
    assert main(["profile", str(traced[0]), "--steps", "3"]) == 2
    assert "unexpected --steps" in capsys.readouterr().err
    assert main(["profile", "nowhere"]) == 2
