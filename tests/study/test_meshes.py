"""Runs on meshes: the same plans whatever shares a member; what meshes are predicted to cost."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jaxhpo.config.run import PbtRun
from jaxhpo.data.config import DataConfig
from jaxhpo.errors import Interrupted, UsageError
from jaxhpo.nn.config import ModelConfig
from jaxhpo.population.chips import CHIPS
from jaxhpo.population.config import Axes, ExecutionConfig
from jaxhpo.population.memory import USABLE, memory_plan, smallest_fsdp
from jaxhpo.record.config import CheckpointConfig, TrackerConfig
from jaxhpo.record.history import history
from jaxhpo.schedules.config import ScheduleConfig
from jaxhpo.search.config import PbtConfig
from jaxhpo.study.forecast import plan
from jaxhpo.study.meshes import factorisations, mesh_choices, sent_bytes
from jaxhpo.study.runs import execute


def asked(out: Path | None, mesh: str, **execution) -> PbtRun:
    return PbtRun(
        steps=12,
        seed=4,
        out=None if out is None else str(out),
        model=ModelConfig(num_layers=1, d_model=16, num_heads=2, context=16),
        schedule=ScheduleConfig(warmup_steps=2),
        data=DataConfig(source="synthetic", batch_size=4, eval_batches=2),
        pbt=PbtConfig(members=4, interval=4, beside=False, fitness="loss"),
        checkpoint=CheckpointConfig(every_seconds=0),
        tracker=TrackerConfig(console="off"),
        execution=ExecutionConfig(mesh=mesh, **execution),
    )


class StopsAfter:
    """Signals that ask a run to stop after its first segment."""

    requested = "SIGTERM"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


def test_a_search_on_one_mesh_resumed_on_another_plans_as_on_one_device_a_member(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, split = tmp_path / "whole", tmp_path / "split"
    execute(asked(whole, "member=2"))
    with monkeypatch.context() as stopping:
        stopping.setattr("jaxhpo.study.runs.StopSignals", StopsAfter)
        with pytest.raises(Interrupted):
            execute(asked(split, "member=2,fsdp=2,tensor=2"))
    execute(replace(asked(split, "member=4,tensor=2"), resume="auto"))
    found, expected = history(split), history(whole)
    rows = lambda past: [event["assignments"] for event in past.plans]
    assert rows(found) == rows(expected)
    assert len(expected.exploits()) > 0
    losses = lambda past: [[r["loss"] for r in e["results"]] for e in past.reports]
    np.testing.assert_allclose(losses(found), losses(expected), rtol=1e-5)


BIG = ModelConfig(num_layers=4, d_model=256, num_heads=4, context=64, vocab_size=512)


def test_a_member_that_no_device_can_hold_is_refused_with_the_mesh_that_can() -> None:
    big = replace(asked(None, "member=1"), model=BIG, pbt=PbtConfig(members=2, beside=False))
    whole = memory_plan(big, 2, 1, 4, 0, axes=Axes())
    halves = memory_plan(big, 2, 1, 4, 0, axes=Axes(fsdp=2))
    assert halves.total < 0.75 * whole.total
    gib = (halves.total + 0.25 * (whole.total - halves.total)) / USABLE / 2**30
    tight = replace(big, execution=replace(big.execution, memory_gib=gib))
    with pytest.raises(UsageError, match="not even one member fits: --mesh fsdp=2 would fit one"):
        plan(tight)
    assert smallest_fsdp(tight, int(gib * 2**30)) == 2
    fitting = replace(tight, execution=replace(tight.execution, mesh="fsdp=2"))
    found = plan(fitting)
    assert found.memory.fits and found.mesh == "fsdp=2"


def test_every_mesh_that_the_devices_allow_is_compared_and_the_fastest_that_fits_is_first() -> None:
    big = replace(asked(None, "member=1"), model=replace(BIG, context=1024))
    big = replace(big, data=replace(big.data, batch_size=8))
    found = mesh_choices(big, members=4, chip="h100", devices=8, segment=4, probe=0)
    names = [each.mesh for each in found.choices]
    assert len(set(names)) == len(names) == 18, "20 of 8, without those of tensor or member 8"
    # members are alone on their devices: nothing is sent but the batch's gradients
    assert names[0] == "member=4,data=2"
    by_name = {each.mesh: each for each in found.choices}
    assert by_name["member=4,tensor=2"].collective_seconds > 0
    state = lambda name: by_name[name].memory.state
    assert state("member=4,data=2") > 1.9 * state("member=4,fsdp=2")
    tight = by_name["member=4,fsdp=2"].memory.total / USABLE / 2**30
    tight = replace(big, execution=replace(big.execution, memory_gib=1.01 * tight))
    ranked = mesh_choices(tight, members=4, chip="h100", devices=8, segment=4, probe=0)
    fits = [each.memory.fits for each in ranked.choices]
    assert fits == sorted(fits, reverse=True) and not all(fits) and any(fits)
    assert "does not fit" in str(ranked) and "members" not in str(ranked).splitlines()[1]
    with pytest.raises(UsageError, match="chip=abacus; allowed: a100, h100"):
        mesh_choices(big, 4, "abacus", 8, 4, 0)


def test_bytes_sent_and_seconds_are_the_closed_forms() -> None:
    """Data: a ring's all-reduce of float32 gradients; tensor: four all-reduces a layer."""
    config = replace(asked(None, "member=1"), model=BIG)
    from jaxhpo.nn import count_parameters

    parameters = count_parameters(BIG)
    assert sent_bytes(config, Axes(data=4)) == {
        "data": 2 * 3 / 4 * 4 * parameters,
        "fsdp": 0.0,
        "tensor": 0.0,
    }
    norms = (2 * BIG.num_layers + 1) * BIG.d_model
    fsdp = sent_bytes(config, Axes(fsdp=2))["fsdp"]
    assert fsdp == 3 * 1 / 2 * 4 * (parameters - norms) + 2 * 1 / 2 * 4 * norms
    tensor = sent_bytes(config, Axes(tensor=2))["tensor"]
    assert tensor == (4 * 4 + 2) * 2 * 1 / 2 * 4 * (4 * 64) * 256
    (first,) = [
        each
        for each in mesh_choices(config, 1, "tpu-v5e", 4, 4, 0).choices
        if each.mesh == "data=4"
    ]
    link = CHIPS["tpu-v5e"].link or 0
    assert first.collective_seconds == pytest.approx(2 * 3 / 4 * 4 * parameters / link)
    assert len(list(factorisations(8))) == 20
