"""Secrets that a person gives are in no file that a run leaves behind."""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from jaxhpo.config import from_dict
from jaxhpo.config.loading import read_toml
from jaxhpo.config.run import SearchRun
from jaxhpo.record.config import TrackerConfig
from jaxhpo.record.directory import RunDirectory
from jaxhpo.record.history import history
from jaxhpo.record.log import EventLog
from jaxhpo.report.page import write_report
from jaxhpo.search.config import SearchConfig
from jaxhpo.study.config_of import without_secrets
from jaxhpo.study.runs import execute, open_record, resume
from tests.study.conftest import tiny

PLANTED = "hunter2-PLANTED"
ENVIRONMENT = ("WANDB_API_KEY", "HF_TOKEN", "PGPASSWORD", "AWS_SECRET_ACCESS_KEY")


def files_with(folder: Path, text: str) -> list[str]:
    found = [path for path in folder.rglob("*") if path.is_file()]
    assert found
    return [str(path.relative_to(folder)) for path in found if text.encode() in path.read_bytes()]


def test_a_planted_secret_is_in_no_file_of_a_run_its_mirror_or_its_report(runs, monkeypatch):
    for name in ENVIRONMENT:
        monkeypatch.setenv(name, PLANTED)
    monkeypatch.setattr(sys, "argv", ["jaxhpo", "train", f"--data.tfds-dir=s3://me:{PLANTED}@host"])
    out = runs / "planted"
    config = replace(tiny(200), out=str(out), tracker=TrackerConfig("off", wandb="offline"))
    address = f"https://me:{PLANTED}@store.example/sets?X-Goog-Signature={PLANTED}"
    config = replace(config, data=replace(config.data, tfds_dir=address))
    execute(config)
    write_report(out)
    assert files_with(out, PLANTED) == []
    kept = files_with(out, "store.example")
    assert {"config.toml", "events.jsonl", "report/index.html"} <= set(kept)
    assert any(name.endswith(".wandb") for name in kept)
    assert resume(out, config).directory == out  # the same command carries it on, secret and all


def test_the_password_of_a_database_is_not_written_and_the_rest_of_its_address_is(tmp_path):
    storage = f"postgresql://me:{PLANTED}@db.example:5432/study?sslpassword={PLANTED}"
    config = SearchRun(search=SearchConfig(scheduler="tpe", storage=storage))
    run = RunDirectory.create(tmp_path / "run")
    setup = SimpleNamespace(
        config=config,
        corpus=SimpleNamespace(bytes_per_token=1.0, baseline=lambda: None),
        fingerprints={},
        parameters=1,
        origin=None,
    )
    with EventLog(run.log) as log:
        open_record(setup, run, log)
        log.append("infeasible", index=0, trial=0, reason=f"cannot reach {storage}")
    assert files_with(run.path, PLANTED) == []
    kept = history(run.log).start["config"]["search"]["storage"]
    assert kept == "postgresql://me@db.example:5432/study?sslpassword=[redacted]"
    table = read_toml(run.path / "config.toml")
    assert table.pop("command") == "search"
    assert from_dict(SearchRun, table) == without_secrets(config)


@pytest.mark.parametrize(
    "text",
    [
        "/home/me/.cache/hub/models--gpt2/snapshots/607a30d783dfa663caf39e06633721c8d4cfcd7e",
        "sqlite:////scratch/me/study.db",
        "postgresql://me@db/study",
        "gs://bucket/token-cache/keys",
        "runs/secret-santa",
    ],
)
def test_what_only_looks_like_a_secret_stays_so_that_a_run_can_be_resumed(text):
    config = SearchRun(search=SearchConfig(scheduler="tpe", storage=text), out=text)
    assert without_secrets(config) == config
