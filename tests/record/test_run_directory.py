"""The run directory: always new, owned by one process, never left."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jaxhpo.errors import UsageError
from jaxhpo.record import CheckpointConfig, RunDirectory, TrackerConfig, redact, safe_join
from jaxhpo.record.redaction import redact_text

HOLDER = """
import sys, time
from jaxhpo.record import RunDirectory
run = RunDirectory(__import__("pathlib").Path(sys.argv[1]))
run.lock()
print("locked", flush=True)
time.sleep(60)
"""


def test_default_directories_are_numbered_and_private(tmp_path):
    first = RunDirectory.create(parent=str(tmp_path / "runs"), prefix="pbt")
    second = RunDirectory.create(parent=str(tmp_path / "runs"), prefix="pbt")
    assert [first.name, second.name] == ["pbt-0001", "pbt-0002"]
    assert first.path.stat().st_mode & 0o777 == 0o700
    (tmp_path / "runs" / "pbt-0041").mkdir()
    assert RunDirectory.create(parent=str(tmp_path / "runs")).name == "pbt-0042"


def test_an_existing_directory_is_refused_and_resume_is_named(tmp_path):
    (tmp_path / "mine").mkdir()
    RunDirectory.create(tmp_path / "mine")  # empty: fine
    (tmp_path / "mine" / "file").touch()
    with pytest.raises(UsageError, match=r"--resume auto or `jaxhpo resume .*mine`"):
        RunDirectory.create(tmp_path / "mine")
    with pytest.raises(UsageError, match="is a file"):
        RunDirectory.create(tmp_path / "mine" / "file")


def test_only_a_run_directory_can_be_opened(tmp_path):
    with pytest.raises(UsageError, match="no such folder"):
        RunDirectory.open(tmp_path / "none")
    with pytest.raises(UsageError, match=r"has no events\.jsonl"):
        RunDirectory.open(tmp_path)


def test_a_second_process_is_refused_by_name_and_a_kill_frees_the_lock(tmp_path):
    run = RunDirectory.create(tmp_path / "run")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(run.path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "locked\n"
        started = time.monotonic()
        with pytest.raises(
            UsageError, match=rf"in use by process {holder.pid} on {os.uname().nodename}"
        ):
            run.lock()
        assert time.monotonic() - started < 1.0
        assert not run.locked
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        started = time.monotonic()
        with run.lock():
            assert run.locked and time.monotonic() - started < 1.0
        assert not run.locked
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


def test_the_lock_excludes_another_object_of_the_same_process(tmp_path):
    run = RunDirectory.create(tmp_path / "run")
    run.lock()
    with pytest.raises(UsageError, match=f"process {os.getpid()}"):
        RunDirectory(run.path).lock()
    run.lock().release()
    RunDirectory(run.path).lock().release()


def test_a_lock_that_is_a_symbolic_link_is_refused(tmp_path):
    run = RunDirectory.create(tmp_path / "run")
    (run.path / ".lock").symlink_to(tmp_path / "victim")
    with pytest.raises(UsageError, match="can't lock"):
        run.lock()
    assert not (tmp_path / "victim").exists()


def test_files_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    run = RunDirectory.create(tmp_path / "run")
    run.write_text("config.toml", "steps = 1\n")
    run.write_text("report/index.html", "<html>")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space")))
    with pytest.raises(UsageError, match="can't write"):
        run.write_text("config.toml", "steps = 2\n")
    assert (run.path / "config.toml").read_text() == "steps = 1\n"
    assert sorted(os.listdir(run.path)) == ["config.toml", "report"]


NAMES = st.one_of(
    st.text(max_size=12),
    st.lists(st.sampled_from(["..", ".", "", "a", "/", "\\", "\0", "é", "é", "link"])).map("".join),
    st.lists(st.sampled_from(["..", "a", "link", "x" * 201, "ok"]), max_size=4).map("/".join),
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(parts=st.lists(NAMES, max_size=3))
@example(parts=["../escape"])
@example(parts=["/etc/passwd"])
@example(parts=["link", "file"])
@example(parts=["a/../../b"])
@example(parts=["\udc80"])
def test_no_name_leads_outside(tmp_path_factory, parts):
    root = tmp_path_factory.getbasetemp() / "joined" / "root"
    if not root.exists():
        (root / "a").mkdir(parents=True)
        (root / "link").symlink_to(root.parent)
    try:
        path = safe_join(root, *parts)
    except UsageError as error:
        assert "\n" not in str(error)
        return
    assert path.resolve() != root.resolve()
    assert path.resolve().is_relative_to(root.resolve())
    assert Path(os.path.normpath(path)) == path


def test_configs_refuse_values_out_of_range():
    with pytest.raises(UsageError, match=r"checkpoint\.keep_last=0; allowed: 1 or more"):
        CheckpointConfig(keep_last=0)
    with pytest.raises(UsageError, match=r"checkpoint\.every_seconds=nan"):
        CheckpointConfig(every_seconds=float("nan"))
    with pytest.raises(UsageError, match=r"tracker\.wandb=on; allowed: off, offline, online"):
        TrackerConfig(wandb="on")


def test_redaction_drops_secrets_and_keeps_the_rest():
    kept = {
        "tokens_per_step": 5,
        "bytes_per_token": 1.5,
        "tokenizer": "bpe",
        "pad_token": "<pad>",
        "fingerprints": {"data_sha1": "a" * 40},
        "author": "me",
        "keep": ["params", {"step": 1}],
    }
    secret = {
        "api_key": "x",
        "WANDB_API_KEY": "x",
        "hf_token": "x",
        "db": {"passwd": "x", "auth": "x", "client_secret": "x"},
        "note": "hf_abcdefghijklmnopqrstuvw",
        "plain": "0123456789abcdef" * 2 + "01234567",
    }
    assert redact({**kept, **secret}) == {**kept, "db": {}}
    assert redact_text("git https://me:pw@host/x --hf-token abc") == (
        "git https://[redacted]@host/x --hf-token [redacted]"
    )
