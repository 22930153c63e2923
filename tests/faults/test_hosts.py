"""Several real processes on one host make one run, and end together when one of them is lost."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jaxhpo.record.history import history
from tests.faults.processes import DEVICES, function, model
from tests.faults.test_killed_runs import outcome

HEARTBEAT, PATIENCE = 6, 60
BOUND = 2 * HEARTBEAT + 20
"""Seconds until all have ended when one is lost: a heartbeat or two, and what a busy host takes."""


class Server:
    """Starts processes that make one run, by forks of one that has imported everything."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            "PJRT_NPROC": "8",
            "XDG_CACHE_HOME": str(folder),
            "TF_CPP_MIN_LOG_LEVEL": "2",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.faults.processes", "serve"],
            env={**os.environ, **self.environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, command: dict[str, Any]) -> Any:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def start(self, name: str, acts: list[list[dict[str, Any]]], **limits: int) -> "Session":
        return Session(self, name, acts, limits)


class Session:
    """Processes that run together: `acts[i]` is what process i does, one after another."""

    def __init__(
        self, server: Server, name: str, acts: list[list[dict[str, Any]]], limits: dict[str, int]
    ) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        self.server, self.count = server, len(acts)
        self.outputs = [server.folder / f"{name}-{rank}.txt" for rank in range(self.count)]
        limits = {"heartbeat_seconds": HEARTBEAT, "timeout_seconds": PATIENCE, **limits}
        self.arguments = [
            [
                {
                    **each,
                    **limits,
                    "coordinator_address": address,
                    "num_processes": self.count,
                    "process_id": rank,
                }
                for each in mine
            ]
            for rank, mine in enumerate(acts)
        ]
        flags = f"--xla_force_host_platform_device_count={DEVICES // self.count}"
        self.environment = {"XLA_FLAGS": flags}
        self.numbers: list[int] = []
        self.slurm = False
        self.strange: subprocess.Popen | None = None

    def forked(self) -> "Session":
        for rank in range(self.count):
            self.numbers.append(self.fork(rank))
        return self

    def under_slurm(self) -> "Session":
        """Forked, and told by the launcher's variables alone how they meet."""
        for mine in self.arguments:
            for each in mine:
                self.port = each.pop("coordinator_address").rpartition(":")[2]
                del each["num_processes"], each["process_id"]
        self.slurm = True
        return self.forked()

    def variables(self, rank: int) -> dict[str, str]:
        if not self.slurm:
            return {}
        return {
            "SLURM_JOB_ID": "1",
            "SLURM_STEP_NODELIST": "localhost",
            "SLURM_NTASKS": str(self.count),
            "SLURM_PROCID": str(rank),
            "SLURM_LOCALID": str(rank),
            "JAX_COORDINATOR_PORT": self.port,
        }

    def fork(self, rank: int) -> int:
        return self.server.ask(
            {
                "environment": self.environment | self.variables(rank),
                "output": str(self.outputs[rank]),
                "acts": self.arguments[rank],
            }
        )

    def with_a_strange_last(self) -> "Session":
        """The last process has a start of its own: its clock, locale and hash seed differ."""
        self.numbers = [self.fork(rank) for rank in range(self.count - 1)]
        odd = {"PYTHONHASHSEED": "7", "LC_ALL": "C", "LANG": "C", "TZ": "Asia/Kathmandu"}
        with open(self.outputs[-1], "w") as output:
            self.strange = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.processes", json.dumps(self.arguments[-1])],
                env={**os.environ, **self.server.environment, **self.environment, **odd},
                stdout=output,
                stderr=output,
            )
        return self

    def statuses(self) -> list[int]:
        """How each ended; a process that is stopped is killed once all others have."""
        found, self.ended = {}, 0.0
        for rank, number in sorted(enumerate(self.numbers), key=lambda pair: self.frozen(pair[0])):
            if self.frozen(rank):
                os.kill(number, signal.SIGKILL)
            found[rank], ended = self.server.ask({"wait": number})
            self.ended = self.ended if self.frozen(rank) else max(self.ended, ended)
        if self.strange is not None:
            found[self.count - 1] = self.strange.wait(timeout=120)
        return [found[rank] for rank in range(self.count)]

    def frozen(self, rank: int) -> bool:
        return any(each.get("do") == "freeze" for each in self.arguments[rank])

    def said(self, rank: int) -> str:
        return self.outputs[rank].read_text()

    def seconds(self, rank: int) -> float:
        """From when process `rank` did what it was told until all had ended."""
        begun = next(line for line in self.said(rank).splitlines() if line.startswith("now"))
        return self.ended - float(begun.split()[1])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    found = Server(tmp_path_factory.mktemp("hosts"))
    yield found
    assert found.process.stdin is not None and found.process.stdout is not None
    found.process.stdin.close()
    found.process.wait(timeout=60)
    found.process.stdout.close()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The function's run by one process, on as many devices."""
    run = tmp_path_factory.mktemp("alone") / "run"
    function(run)
    assert history(run).exploits()
    return run


ACTS: list[tuple[str, dict[str, Any]]] = [
    ("model", {"run": "model"}),
    ("differing", {"at": 2, "do": "differ"}),
    ("failing", {"at": 3, "do": "fail"}),
    ("stopped", {"at": 1, "do": "stop"}),
]
"""What two processes run one after another, and what the second does in it."""


@pytest.fixture(scope="module")
def two(server: Server) -> Session:
    plain = [
        {"out": str(server.folder / name), "run": what.get("run", "function")}
        for name, what in ACTS
    ]
    odd = [{**each, **what} for each, (_, what) in zip(plain, ACTS, strict=True)]
    session = server.start("two", [plain, odd]).with_a_strange_last()
    assert session.statuses() == [75, 75], session.said(0) + session.said(1)
    return session


def equal(run: Path, expected: Path) -> bool:
    """In plans, losses and curves, the best trial and its weights, to the bit."""
    return outcome(run) == outcome(expected)


def test_two_processes_do_to_the_bit_what_one_does_on_the_same_mesh(
    two: Session, server: Server, tmp_path: Path
) -> None:
    """Trains, evaluates and exploits across processes, one of another clock, locale and hash."""
    model(tmp_path / "run")
    assert history(server.folder / "model").exploits()
    assert equal(server.folder / "model", tmp_path / "run")


def test_a_plan_that_differs_stops_all_naming_field_and_values(
    two: Session, server: Server
) -> None:
    rate = r"assignments.1.point.lr is 0\.\d+ on process 0 and 0\.\d+ on process 1"
    for rank in (0, 1):
        assert re.search(f"UsageError the next plan.*{rate}", two.said(rank))
    assert len(history(server.folder / "differing").plans) == 2


def test_an_error_in_one_process_ends_all_and_is_said_to_all(two: Session) -> None:
    assert "ZeroDivisionError a bug" in two.said(1)
    assert "Lost process 1: ZeroDivisionError: a bug" in two.said(0)


def test_a_signal_to_one_process_stops_all_at_one_segment(two: Session, server: Server) -> None:
    past = history(server.folder / "stopped")
    assert [event["reason"] for event in past.of("stop")] == ["SIGTERM"]
    assert past.checkpoints[-1]["index"] == past.reports[-1]["index"] == 1
    assert all("stopped jaxhpo resume" in two.said(rank) for rank in (0, 1))


def test_what_two_have_saved_goes_on_in_one_and_back_in_four(
    two: Session, server: Server, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, fewer = server.folder / "stopped", tmp_path / "fewer"
    shutil.copytree(run, fewer)
    function(fewer, devices=2)  # other places for the same trials
    assert outcome(fewer)[0] == outcome(alone)[0]
    stop_at(monkeypatch, run, 3)
    acts = [[{"out": str(run)}] for _ in range(4)]
    session = server.start("four", acts).under_slurm()
    assert session.statuses() == [0] * 4, session.said(0) + session.said(3)
    assert history(run).rewinds == 2
    assert equal(run, alone)


def stop_at(monkeypatch: pytest.MonkeyPatch, run: Path, index: int) -> None:
    """Resumes a run in this process, up to a report."""
    from jaxhpo.errors import Interrupted
    from jaxhpo.study.loop import Study

    step = Study.step

    def stopping(study: Any, plan: Any) -> Any:
        if study.index == index:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(study, plan)

    with monkeypatch.context() as patch:
        patch.setattr(Study, "step", stopping)
        with pytest.raises(Interrupted):
            function(run)


LOSSES = {
    "killed-first": (0, "kill", {}),
    "killed-last": (1, "kill", {}),
    "frozen": (1, "freeze", {}),
    "hanging": (1, "hang", {"timeout_seconds": 20}),
}
"""Name -> the process that is lost, how, and other limits."""


@pytest.fixture(scope="module")
def lost(server: Server, two: Session) -> dict[str, Session]:
    """For each way to lose a process a run of two that has lost one; all run at once."""
    sessions = {}
    for name, (rank, do, limits) in LOSSES.items():
        acts = [[{"out": str(server.folder / name)}] for _ in range(2)]
        acts[rank][0] |= {"at": 3, "do": do}
        sessions[name] = server.start(name, acts, **limits).forked()
    return sessions


@pytest.mark.parametrize("name", LOSSES)
def test_all_end_soon_when_one_is_lost_and_the_run_resumes_to_the_same_bits(
    name: str, lost: dict[str, Session], server: Server, alone: Path
) -> None:
    rank, do, limits = LOSSES[name]
    session = lost[name]
    statuses = session.statuses()
    assert 0 not in statuses and 75 not in statuses
    assert session.seconds(rank) < BOUND + limits.get("timeout_seconds", 0)
    if do == "hang":
        assert "process 1 of 2 did not come within 20 s" in session.said(0)
    run = server.folder / name
    function(run)
    assert history(run).rewinds == 1
    assert equal(run, alone)
