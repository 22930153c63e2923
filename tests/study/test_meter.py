"""How well devices and time are used: the arithmetic, and that nothing is decided by it."""

from dataclasses import replace
from pathlib import Path

import pytest

from jaxhpo import nn
from jaxhpo.config import from_dict
from jaxhpo.config.run import TrainRun
from jaxhpo.population.chips import CHIPS, Peak, chip_of, peak_of
from jaxhpo.population.mesh import make_mesh
from jaxhpo.record.config import TrackerConfig
from jaxhpo.record.history import History, history
from jaxhpo.record.log import read
from jaxhpo.report.summary import summarise
from jaxhpo.study.meter import Meter, Speed, meter_of
from jaxhpo.study.replayed import replay
from jaxhpo.study.runs import execute
from jaxhpo.study.setup import prepare
from tests.study.conftest import tiny

MEASURED = tuple(Speed.__dataclass_fields__)


def test_a_peak_is_that_of_the_chip_and_the_dtype_or_what_a_person_states():
    assert peak_of("NVIDIA H100 80GB HBM3", ["bfloat16"]).flops == 989.4e12
    assert peak_of("NVIDIA H100 80GB HBM3", ["float32"]).flops == 494.7e12
    assert peak_of("TPU v5 lite", ["float32"]).flops == 197e12
    assert "data sheet" in peak_of("NVIDIA H100 80GB HBM3", ["float32", "bfloat16"]).source
    assert peak_of("cpu", ["float32"]) is None
    assert peak_of("cpu", ["float32"], 1e11) == Peak(1e11, "tracker.peak_flops")
    kinds = [kind for chip in CHIPS.values() for kind in chip.kinds]
    assert len(kinds) == len(set(kinds)) and all(chip_of(kind) for kind in kinds)


def test_utilisation_is_operations_over_what_all_devices_could_have_done():
    meter = Meter(Peak(1e12, "made up"), devices=4, began=100.0, now=lambda: 120.0)
    speed = meter.segment(seconds=5.0, steps=50, tokens=1000, flops=8e12)
    assert speed.mfu == 8e12 / (5.0 * 4 * 1e12)
    assert speed.step_seconds == 0.1 and speed.tokens_per_second == 200.0
    assert speed.goodput == 5.0 / 20.0
    assert speed.host_bytes is not None and speed.host_bytes > 2**20
    assert Meter().segment(5.0, 50, 1000, 8e12).mfu is None
    assert meter.segment(5.0, 0, 0, 0.0).mfu is None


def test_goodput_counts_from_the_first_start_and_segments_done_again_for_nothing():
    report = lambda index, seconds: {"kind": "report", "index": index, "seconds": seconds}
    events = ({"kind": "start", "time": 1000.0}, report(0, 10.0), report(1, 20.0), report(2, 40.0))
    meter = Meter(began=1500.0, now=lambda: 1200.0)
    meter.resume(History(Path("events.jsonl"), events, 1), reports=2)
    assert meter.goodput() == 30.0 / 200.0
    assert meter.segment(40.0, 1, 1, 0.0).goodput == 70.0 / 200.0
    meter.now = lambda: 999.0  # the clock was set back
    assert meter.goodput() is None


@pytest.fixture(scope="module")
def measured(runs: Path) -> Path:
    """A run on two devices of a million operations a second each, as somebody states."""
    run = runs / "measured"
    tracker = TrackerConfig(console="off", peak_flops=1e6)
    execute(replace(tiny(200), out=str(run), tracker=tracker))
    return run


def test_every_report_says_how_fast_it_was_and_the_log_what_that_is_measured_against(measured):
    past = history(measured)
    (hardware,) = past.of("hardware")
    assert hardware["peak_flops"] == 1e6 and hardware["peak_source"] == "tracker.peak_flops"
    model = from_dict(TrainRun, past.start["config"]).model
    for report in past.reports:
        assert set(MEASURED) <= set(report)
        flops = report["tokens"] * nn.flops_per_token(model, model.context)
        stated = report["seconds"] * hardware["devices"] * hardware["peak_flops"]
        assert report["mfu"] == pytest.approx(flops / stated)
        assert report["step_seconds"] == report["seconds"] / 100
        assert 0 < report["goodput"] < 1
    assert past.finish["goodput"] < 1
    costs = summarise(past)["costs"]
    assert costs["goodput"] == past.finish["goodput"]
    assert costs["mfu"] == pytest.approx(
        sum(r["tokens"] for r in past.reports)
        * nn.flops_per_token(model, model.context)
        / (sum(r["seconds"] for r in past.reports) * hardware["devices"] * 1e6)
    )


def test_without_a_known_peak_there_is_no_utilisation():
    meter = meter_of(tiny(), make_mesh(2))
    assert meter.event()["peak_flops"] is None and meter.devices == 2 and str(meter) == ""
    assert meter.segment(1.0, 10, 100, 1e9).mfu is None


def test_a_log_without_the_measurements_replays_to_the_same_plans(measured):
    past = history(measured)
    bare = [
        {name: value for name, value in report.items() if name not in (*MEASURED, "seconds")}
        for report in past.reports
    ]
    make = lambda: prepare(tiny(200)).scheduler
    assert replay(make(), past.plans, bare) == replay(make(), past.plans, past.reports)


def test_seconds_that_were_done_again_are_known(tmp_path):
    from jaxhpo.record.log import EventLog

    with EventLog(tmp_path / "events.jsonl") as log:
        for index in range(3):
            log.append("plan", index=index, assignments=[])
            log.append("report", index=index, seconds=10.0 + index, results=[])
        log.append("rewind", index=0)
    assert len(read(tmp_path / "events.jsonl")) == 7
    assert history(tmp_path / "events.jsonl").rewound_seconds == 11.0 + 12.0
