"""Several processes on one study: no trial twice, none lost, whoever dies and whenever."""

import json
import math
import random
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import optuna
import pytest

from jaxhpo.errors import UsageError
from jaxhpo.search import Memory, SearchConfig, Space, make
from jaxhpo.search.desk import HELD, REFUSED, RETRY_OF
from jaxhpo.search.shared import Shared
from jaxhpo.search.storage import without_password
from tests.contracts.toy import Scored, drive

WORKER = Path(__file__).with_name("shared_worker.py")
ROOT = Path(__file__).parents[2]
TEXTS = {"x": "uniform(0, 1)", "kind": "choice(a, b)"}
SPACE = Space.from_mapping(TEXTS, lambda name: False, list(TEXTS))
# threads stand for processes below, and Python's filters of warnings are one for all threads
pytestmark = pytest.mark.filterwarnings("ignore:Heartbeat of storage", "ignore:.*experimental")
FAIL, COMPLETE = optuna.trial.TrialState.FAIL, optuna.trial.TrialState.COMPLETE


def shared(folder: Path, trials=6, heartbeat=1, space=SPACE, name="tpe", journal=None) -> Shared:
    url = f"sqlite:///{folder}/study.db"
    return Shared(name, space, 0, trials, 30, url, "s", heartbeat, journal)


def study_of(folder: Path, name="s") -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.load_study(study_name=name, storage=f"sqlite:///{folder}/study.db")


def start(folder: Path, worker: int, trials: int) -> subprocess.Popen:
    command = [sys.executable, str(WORKER), f"sqlite:///{folder}/study.db"]
    command += [str(folder / f"log-{worker}.jsonl"), str(trials), "1"]
    with (folder / f"errors-{worker}.txt").open("a") as errors:
        return subprocess.Popen(command, cwd=ROOT, stderr=errors)


def events(folder: Path, worker: int) -> list[dict]:
    path = folder / f"log-{worker}.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def trained_in_full(folder: Path, worker: int) -> list[int]:
    """Numbers of the trials that a process trained to the end, as often as it did."""
    asked = [
        e["answer"]["number"] for e in events(folder, worker) if "ask" in e.get("question", "")
    ]
    numbers = [number for number in asked if number is not None]
    reports = [row for e in events(folder, worker) for row in e.get("report", ())]
    return [numbers[trial] for trial, step, _ in reports if step == 30]


def check(folder: Path, workers: int, trials: int) -> list[optuna.trial.FrozenTrial]:
    """The laws: all trials are complete, each was trained by one process, each stale one has one
    successor.
    """
    found = study_of(folder, "jaxhpo").get_trials()
    complete = [trial for trial in found if trial.state == COMPLETE]
    assert len(complete) == trials
    assert {trial.state for trial in found} <= {COMPLETE, FAIL}
    full = [number for worker in range(workers) for number in trained_in_full(folder, worker)]
    told = {trial.number for trial in complete}
    assert sorted(number for number in full if number in told) == sorted(told)
    stale = [t for t in found if t.state == FAIL and REFUSED not in t.user_attrs]
    for trial in stale:
        retries = [t for t in found if t.user_attrs.get(RETRY_OF) == trial.number]
        given_out = [t for t in retries if REFUSED not in t.user_attrs]
        assert len(given_out) == 1, "stale trials are given out again exactly once"
        assert not trial.params or given_out[0].params == trial.params
    points = [tuple(trial.params.values()) for trial in complete]
    assert len(set(points)) == trials, "no point twice"
    return stale


def hold(folder: Path, worker: int) -> Path:
    path = folder / f"log-{worker}.hold"
    path.touch()
    return path


def wait_for(folder: Path, worker: int, process: subprocess.Popen, count: int) -> None:
    """Wait until a process has logged so many events, or has ended."""
    until = time.monotonic() + 60
    while len(events(folder, worker)) < count and process.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.01)


def test_two_processes_share_a_study_though_they_are_killed(tmp_path):
    rng, trials = random.Random(3), 24
    holds = [hold(tmp_path, worker) for worker in (0, 1)]
    running = [start(tmp_path, worker, trials) for worker in (0, 1)]
    for worker in (0, 1):
        wait_for(tmp_path, worker, running[worker], 1)
    for late in (False, True, False, True):
        for path in holds:
            path.unlink(missing_ok=True)
        victim = rng.randrange(2)
        other = 1 - victim
        logged = len(events(tmp_path, victim))
        wait_for(tmp_path, victim, running[victim], logged + rng.randint(1, 4))
        # the other is held until the victim is back, or would finish the study alone
        hold(tmp_path, other)
        assert running[victim].poll() is None, "the study ended before its processes were killed"
        running[victim].kill()
        running[victim].wait()
        if late:  # too late to keep its trials
            time.sleep(3.5)
            holds[other].unlink()
            logged = len(events(tmp_path, other))
            wait_for(tmp_path, other, running[other], logged + 3)
            hold(tmp_path, other)
        logged = len(events(tmp_path, victim))
        running[victim] = start(tmp_path, victim, trials)
        wait_for(tmp_path, victim, running[victim], logged + 1)
    holds[other].unlink()
    assert all(process.wait(60) is not None for process in running)
    errors = [(tmp_path / f"errors-{worker}.txt").read_text() for worker in (0, 1)]
    # one that comes back when all is done is told so
    assert all(not text or "has as many already" in text for text in errors), errors
    assert check(tmp_path, 2, trials), "no trial changed hands"


def test_a_process_that_never_comes_back_leaves_its_trials_to_the_other(tmp_path):
    first = start(tmp_path, 0, 6)
    while not any("report" in event for event in events(tmp_path, 0)):
        assert first.poll() is None
        time.sleep(0.02)
    first.kill()
    first.wait()
    assert start(tmp_path, 1, 6).wait(60) == 0, (tmp_path / "errors-1.txt").read_text()
    assert len(check(tmp_path, 2, 6)) >= 1


def test_a_stale_trial_is_given_out_again_once_though_two_ask_at_once(tmp_path):
    dead = shared(tmp_path)
    points = [dead.propose(trial) for trial in range(2)]
    dead.close()
    askers = [shared(tmp_path) for _ in range(3)]
    time.sleep(3.2)
    got: list[dict] = []
    threads = [
        threading.Thread(target=lambda each=each: got.append(each.propose(0))) for each in askers
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(point in points for point in got) == 2 and len(got) == 3
    trials = study_of(tmp_path).get_trials()
    retries = [t for t in trials if RETRY_OF in t.user_attrs and HELD in t.user_attrs]
    assert sorted(t.user_attrs[RETRY_OF] for t in retries) == [0, 1]
    assert dead.report(0, 30, 0.5) is False, "it is another's by now"
    for each in askers:
        each.close()


def test_of_two_retries_of_one_trial_one_is_given_back(tmp_path):
    dead = shared(tmp_path, heartbeat=60)
    point = dead.propose(0)
    dead.close()
    study = study_of(tmp_path)
    study.tell(0, state=FAIL)
    (stale,) = study.get_trials()
    for _ in range(2):  # as when two processes find it stale at once
        waiting = optuna.trial.create_trial(
            state=optuna.trial.TrialState.WAITING,
            params=stale.params,
            distributions=stale.distributions,
            user_attrs={RETRY_OF: 0},
        )
        study.add_trial(waiting)
    asker = shared(tmp_path, heartbeat=60)
    points = [asker.propose(trial) for trial in range(2)]
    asker.close()
    assert points[0] == point != points[1]
    assert "already" in study_of(tmp_path).get_trials()[2].user_attrs[REFUSED]


def test_of_two_last_trials_made_at_once_the_later_is_given_back(tmp_path):
    first, second = (shared(tmp_path, trials=1, heartbeat=60) for _ in range(2))
    point = first.propose(0)
    asked = study_of(tmp_path).ask()  # what another makes that still counted none
    assert second._desk._refusal(asked.number, point) == "the study has enough"
    assert second._desk._refusal(0, point) is None
    first.close()
    second.close()


def test_a_trial_of_a_process_that_died_before_its_first_sign_of_life_is_not_lost(tmp_path):
    proposer = shared(tmp_path, trials=1)
    orphan = study_of(tmp_path).ask()
    assert proposer.propose(0) is not None
    assert study_of(tmp_path).get_trials()[orphan.number].state == FAIL
    proposer.close()


def test_no_more_trials_are_given_out_than_the_study_is_to_have(tmp_path):
    askers = [shared(tmp_path, trials=5) for _ in range(3)]
    got: list = []

    def take(asker: Shared) -> None:
        for trial in range(4):
            point = asker.propose(trial) if len(asker._numbers) == trial else None
            got.append(point)

    threads = [threading.Thread(target=take, args=(asker,)) for asker in askers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(point is not None for point in got) == 5
    for each in askers:
        each.close()


def test_a_search_is_replayed_from_the_journal_without_asking(tmp_path):
    config = SearchConfig(
        trials=5, places=2, storage=f"sqlite:///{tmp_path}/study.db", heartbeat=60
    )
    loss = lambda row, step: math.nan if row.trial == 2 else row.point["x"] + 1 / step
    engine = lambda: Scored(loss, 30)
    journal = Memory()
    scheduler = make("tpe", config, SPACE, 30, 0, journal=journal)
    history = drive(scheduler, engine=engine())
    scheduler.close()

    class Closed(Memory):
        asks = False

        def once(self, question, ask):
            return self.answers[question]

    again = make("tpe", config, SPACE, 30, 0, journal=Closed(journal.answers))
    assert drive(again, history, engine=engine()) == history
    states = [trial.state for trial in study_of(tmp_path, "jaxhpo").get_trials()]
    assert states == [COMPLETE] * 5


@pytest.mark.parametrize("stopper", ["halving", "asha"])
def test_trials_that_are_let_go_are_told_as_pruned(tmp_path, stopper):
    url = f"sqlite:///{tmp_path}/study.db"
    config = SearchConfig(trials=9, places=3, storage=url, stopper=stopper, heartbeat=60)
    scheduler = make("tpe", config, SPACE, 30, 0)
    history = drive(scheduler, engine=Scored(lambda row, step: row.point["x"] + 1 / step, 30))
    scheduler.close()
    full = {r.trial for _, report in history for r in report if r.step == 30}
    trials = study_of(tmp_path, "jaxhpo").get_trials()
    assert {t.number for t in trials if t.state == COMPLETE} == full
    assert all(
        t.state.name == "PRUNED" and t.intermediate_values for t in trials if t.number not in full
    )


def test_a_study_of_another_space_is_refused_naming_what_differs(tmp_path):
    shared(tmp_path).close()
    other = Space.from_mapping({"x": "uniform(0, 2)"}, lambda name: False, ["x"])
    with pytest.raises(
        UsageError, match=r"search\.study='s' was made for space .*uniform\(0\.0, 2"
    ):
        shared(tmp_path, space=other)


def test_a_database_that_is_out_of_reach_is_refused_in_one_line(tmp_path):
    with pytest.raises(UsageError, match="unable to open database file") as error:
        shared(tmp_path / "missing")
    assert "\n" not in str(error.value)
    (tmp_path / "study.db").write_bytes(b"no database" * 100)
    with pytest.raises(UsageError, match="file is not a database"):
        shared(tmp_path)


@pytest.mark.parametrize(
    "url", ["nonsense", "oracle+nothing://u:secret@h/d", "postgresql://u:secret@h/d"]
)
def test_a_url_that_cannot_be_used_is_refused_without_its_password(url):
    with pytest.raises(UsageError, match=r"search\.storage=") as error:
        Shared("tpe", SPACE, 0, 5, 30, url, "s", 1)
    assert "secret" not in str(error.value) and "\n" not in str(error.value)
    assert "secret" not in without_password(url)


def test_a_locked_database_gets_one_line_and_loses_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxhpo.search.storage.PATIENCE_SECONDS", 0.2)
    proposer = shared(tmp_path, heartbeat=60)
    first = proposer.propose(0)
    holder = sqlite3.connect(tmp_path / "study.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(UsageError, match="database is locked; what has been logged is safe"):
        proposer.report(0, 30, 0.5)
    holder.execute("ROLLBACK")
    assert proposer.report(0, 30, 0.5) is True
    (trial,) = study_of(tmp_path).get_trials()
    assert trial.value == 0.5 and trial.params == first
    proposer.close()


def test_a_hostile_study_runs_no_code(tmp_path):
    """CMA-ES would unpickle what the database holds; no other sampler does."""
    with pytest.raises(UsageError, match=r"search\.proposer='cmaes' can't share a study"):
        shared(tmp_path, name="cmaes")
    assert not (tmp_path / "study.db").exists()


def test_a_waiting_trial_outside_the_space_is_given_back(tmp_path):
    proposer = shared(tmp_path, heartbeat=60)
    study_of(tmp_path).enqueue_trial({"x": 7.0, "kind": "a"})
    assert 0 <= proposer.propose(0)["x"] <= 1
    assert "outside" in study_of(tmp_path).get_trials()[0].user_attrs[REFUSED]
    proposer.close()
