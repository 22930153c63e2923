"""The event log: what is written is read, damage is named, what a crash leaves is tolerated."""

import json
import math
import os
import resource
import subprocess
import sys
import threading
import time
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from jaxhpo.record import EventLog, LogError, read, shortest
from jaxhpo.record.history import history


def bits(value):
    return np.float64(value).tobytes()


def filled(path: Path, count: int = 5) -> Path:
    with EventLog(path) as log:
        for index in range(count):
            log.append("report", index=index, results=[{"trial": 0, "loss": 1.0 / (index + 3)}])
    return path


def test_events_come_back_as_they_were_written(tmp_path):
    values = [math.nan, math.inf, -math.inf, 0.1, 1 / 3, 5e-324, 1.7e308, -0.0, 2**53 + 1]
    with EventLog(tmp_path / "events.jsonl") as log:
        log.append("report", index=0, results=[{"trial": 1, "samples": values}], fsync=True)
        log.append("start", config={"optimizer": {"clip_norm": math.inf, "kind": "adamw"}})
        log.append("sample", trial=1, prompt="NaN", text="Infinity\nßé", temperature=math.inf)
    report, start, sample = read(tmp_path / "events.jsonl")
    found = report["results"][0]["samples"]
    assert [type(value) for value in found] == [type(value) for value in values]
    assert [bits(value) for value in found] == [bits(value) for value in values]
    assert start["config"] == {"optimizer": {"clip_norm": math.inf, "kind": "adamw"}}
    assert (sample["prompt"], sample["text"]) == ("NaN", "Infinity\nßé")
    assert sample["temperature"] == math.inf
    assert [event["seq"] for event in (report, start, sample)] == [0, 1, 2]


def test_every_line_is_strict_json_with_the_agreed_fields(tmp_path):
    with EventLog(tmp_path / "events.jsonl") as log:
        log.append("baseline", name="bigram", loss=math.nan)
    (line,) = (tmp_path / "events.jsonl").read_text().splitlines()
    event = json.loads(line, parse_constant=lambda constant: pytest.fail(constant))
    assert list(event) == ["seq", "time", "kind", "name", "loss", "crc"]
    assert event["loss"] == "NaN"


def test_a_text_that_would_be_read_as_a_number_is_refused(tmp_path):
    with EventLog(tmp_path / "events.jsonl") as log:
        with pytest.raises(ValueError, match="read as a number"):
            log.append("plan", index=0, assignments=[{"point": {"kind": "NaN"}}])
        log.append("plan", index=0, assignments=[])
    assert len(read(tmp_path / "events.jsonl")) == 1


def test_shortest_float32_rounds_to_the_same_bits():
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2**32, 5000, dtype=np.uint32).view(np.float32)
    finite = values[np.isfinite(values)]
    again = np.array(shortest(finite), np.float32)
    assert again.tobytes() == finite.tobytes()
    for value in shortest(finite):  # nine significant digits tell all float32 apart
        assert len(Decimal(repr(value)).normalize().as_tuple().digits) <= 9
    assert shortest(np.float32(0.1)) == 0.1


def test_numbering_goes_on_when_the_log_is_opened_again(tmp_path):
    path = filled(tmp_path / "events.jsonl")
    with EventLog(path) as log:
        log.append("stop", reason="SIGTERM", index=4)
    assert [event["seq"] for event in read(path)] == list(range(6))


@pytest.mark.parametrize("keep", [0, 1, 40, 100, -1])
def test_a_torn_last_line_is_set_apart_and_the_log_goes_on(tmp_path, keep):
    path = filled(tmp_path / "events.jsonl", 3)
    whole = path.read_bytes()
    last = whole.rfind(b"\n", 0, -1) + 1
    path.write_bytes(whole[: last + keep] if keep >= 0 else whole[:-1])
    held = 2 if keep >= 0 else 3  # a line that lacks only its newline is whole
    assert len(read(path)) == held
    before = path.read_bytes()
    with EventLog(path) as log:
        if log.torn:
            with pytest.raises(ValueError, match="must be a rewind"):
                log.append("plan", index=9)
        log.append("rewind", index=1)
        log.append("report", index=2, results=[])
    assert path.read_bytes().startswith(before)  # nothing is ever truncated
    assert [event["index"] for event in history(path).reports] == [0, 1, 2]
    assert [event["seq"] for event in read(path)] == list(range(held + 2))


def test_lines_torn_by_two_processes_in_a_row_are_tolerated(tmp_path):
    path = filled(tmp_path / "events.jsonl", 2)
    path.write_bytes(path.read_bytes() + b'{"seq":2,"ti')
    EventLog(path).close()
    path.write_bytes(path.read_bytes() + b'\n{"seq":2,"time":1,"kind":"rew')
    with EventLog(path) as log:
        log.append("rewind", index=1)
    assert [event["kind"] for event in read(path)] == ["report", "report", "rewind"]


def test_blocks_that_a_power_cut_left_empty_are_taken_for_torn(tmp_path):
    path = filled(tmp_path / "events.jsonl", 3)
    whole = path.read_bytes()
    path.write_bytes(whole[:-60] + b"\0" * 59 + b"\n")
    assert len(read(path)) == 2


def test_a_torn_line_that_no_rewind_follows_is_an_error(tmp_path):
    path = filled(tmp_path / "events.jsonl", 3)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1][:30] + b"\n" + lines[2])
    with pytest.raises(LogError, match=r"events\.jsonl is damaged at line 2: it is cut off"):
        read(path)


def test_any_flipped_bit_is_an_error_that_names_the_line(tmp_path):
    path = filled(tmp_path / "events.jsonl", 4)
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    for place in rng.integers(0, len(whole) - 1, 200):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(damaged))
        line = whole[:place].count(b"\n") + 1
        try:
            events = read(path)
        except LogError as error:
            assert f"{path} is damaged at line" in str(error)
            assert abs(int(str(error).split("line ")[1].split(":")[0]) - line) <= 1
        else:  # only the end of the last line can pass for a torn one
            assert line == 4 and len(events) == 3
    path.write_bytes(whole)
    assert len(read(path)) == 4


def test_a_flipped_byte_inside_the_last_line_is_not_taken_for_torn(tmp_path):
    path = filled(tmp_path / "events.jsonl", 3)
    whole = bytearray(path.read_bytes())
    whole[-60] ^= 1
    path.write_bytes(bytes(whole))
    with pytest.raises(LogError, match="line 3: its checksum does not match"):
        EventLog(path)


def test_a_missing_line_is_an_error_that_names_the_gap(tmp_path):
    path = filled(tmp_path / "events.jsonl", 4)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:1] + lines[2:]))
    with pytest.raises(LogError, match="line 2: it is event 2 where 1 is due"):
        read(path)


def test_a_rewind_undoes_what_followed_its_report(tmp_path):
    path = tmp_path / "events.jsonl"
    with EventLog(path) as log:
        log.append("start", config={"steps": 3})
        for index in range(4):
            log.append("plan", index=index, assignments=[{"first": index}])
            log.append("report", index=index, results=[])
        log.append("checkpoint", index=1, directory="x")  # committed late
        log.append("checkpoint", index=3, directory="y")
        log.append("stop", reason="SIGTERM", index=3)
        log.append("rewind", index=1)
        assert [event["index"] for event in history(path).plans] == [0, 1]
        assert [event["index"] for event in history(path).checkpoints] == [1]
        log.append("plan", index=2, assignments=[{"again": 2}])
        log.append("report", index=2, results=[])
        log.append("finish", seconds=1.0)
    held = history(path)
    assert [event["assignments"] for event in held.plans] == [
        [{"first": 0}],
        [{"first": 1}],
        [{"again": 2}],
    ]
    assert [event["index"] for event in held.reports] == [0, 1, 2]
    assert held.of("stop") == () and held.finish["seconds"] == 1.0 and held.rewinds == 1
    assert held.start["config"] == {"steps": 3}


def test_a_rewind_to_before_the_first_report_leaves_only_the_start(tmp_path):
    path = tmp_path / "events.jsonl"
    with EventLog(path) as log:
        log.append("start", config={})
        log.append("plan", index=0, assignments=[])
        log.append("report", index=0, results=[])
        log.append("rewind", index=-1)
    assert [event["kind"] for event in history(tmp_path).events] == ["start"]


def test_history_joins_curves_and_finds_exploits(tmp_path):
    path = tmp_path / "events.jsonl"
    carry = {"trial": 0, "step": None}
    with EventLog(path) as log:
        log.append("plan", index=0, assignments=[{"trial": 1, "parent": None, "point": {"a": 1.0}}])
        log.append("report", index=0, curves={"1": {"step": [0, 1], "loss": [3.0, math.nan]}})
        log.append(
            "plan", index=1, assignments=[{"trial": 1, "parent": carry, "point": {"a": 2.0}}]
        )
        log.append("report", index=1, curves={"1": {"step": [2], "loss": [2.0]}})
    held = history(path)
    assert held.curves()[1]["step"] == [0, 1, 2]
    assert math.isnan(held.curves()[1]["loss"][1])
    assert held.exploits() == [
        {"index": 1, "trial": 1, "parent": 0, "before": {"a": 1.0}, "after": {"a": 2.0}}
    ]


def test_threads_never_mix_their_lines(tmp_path):
    path = tmp_path / "events.jsonl"
    with EventLog(path) as log:

        def write(name):
            for index in range(50):
                log.append("note", who=name, index=index, padding="x" * 3000)

        threads = [threading.Thread(target=write, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    events = read(path)
    for name in range(4):
        assert [e["index"] for e in events if e["who"] == name] == list(range(50))


def test_a_full_disk_is_one_clear_line_and_the_file_stays_readable(tmp_path):
    path = filled(tmp_path / "events.jsonl", 2)
    size = path.stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    log = EventLog(path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 1000, hard))
    try:
        with pytest.raises(LogError, match=r"the disk is full: .*needs \d+ bytes, \d+ are free"):
            log.append("report", index=2, results=[{"samples": [0.5] * 1000}])
        assert len(read(path)) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    log.append("stop", reason="disk", index=2)
    log.close()
    assert [event["kind"] for event in read(path)] == ["report", "report", "report", "stop"]


def test_a_report_of_100_000_floats_is_quick(tmp_path):
    values = np.random.default_rng(0).normal(size=100_000).astype(np.float32)
    with EventLog(tmp_path / "events.jsonl") as log:
        started = time.perf_counter()
        log.append("report", index=0, curves={"0": {"loss": shortest(values)}}, fsync=True)
        seconds = time.perf_counter() - started
    assert seconds < 1.0  # 0.1 s on an idle core
    loss = read(tmp_path / "events.jsonl")[0]["curves"]["0"]["loss"]
    assert np.array(loss, np.float32).tobytes() == values.tobytes()


def test_a_log_that_is_a_symbolic_link_is_refused(tmp_path):
    target = filled(tmp_path / "elsewhere")
    (tmp_path / "events.jsonl").symlink_to(target)
    with pytest.raises(LogError, match="can't"):
        read(tmp_path / "events.jsonl")
    with pytest.raises(LogError, match="can't"):
        EventLog(tmp_path / "events.jsonl")


def test_a_start_keeps_no_secret(tmp_path):
    path = tmp_path / "events.jsonl"
    with EventLog(path) as log:
        log.append(
            "start",
            command="jaxhpo pbt --tracker.api-key=CANARY1",
            config={"tracker": {"password": "CANARY2", "kind": "x"}, "data": {"tokenizer": "byte"}},
            environment={"HF_TOKEN": "CANARY3", "jax": "0.10.2"},
            bytes_per_token=1.0,
        )
    assert "CANARY" not in path.read_text()
    (start,) = read(path)
    assert start["config"] == {"tracker": {"kind": "x"}, "data": {"tokenizer": "byte"}}
    assert start["environment"] == {"jax": "0.10.2"} and start["bytes_per_token"] == 1.0


def test_log_directory_and_lock_import_no_heavy_library():
    code = (
        "import sys; from jaxhpo.record import EventLog, History, RunDirectory, StopSignals\n"
        "from jaxhpo.record.trackers import make_tracker\n"
        "heavy = {'jax', 'orbax', 'numpy', 'rich', 'wandb'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 0, done.stderr
