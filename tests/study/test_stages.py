"""Runs in stages: each a fork of the last, from one strict file, resumable."""

from pathlib import Path

import pytest

from jaxhpo.errors import Interrupted, UsageError
from jaxhpo.record.history import history
from jaxhpo.study.stages import read_stages, resume_stages, run_stages

FILE = """
[model]
num_layers = 1
d_model = 16
num_heads = 2
context = 16
[dropout]
residual = 0.1
[data]
source = "synthetic"
batch_size = 2
eval_batches = 2
[schedule]
kind = "constant"
warmup_steps = 10
[tracker]
console = "off"
diagnose_every = 0
[execution]
devices = 2

[[stages]]
name = "pretrain"
steps = 120

[[stages]]
name = "long"
steps = 130
model.context = 8
data.batch_size = 4

[[stages]]
name = "anneal"
preset = "decay"
steps = 40
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "llama.toml"
    path.write_text(FILE)
    return path


@pytest.fixture
def stopping(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Asks runs to stop after so many segments."""
    left = {"segments": 10**6}

    class Asked:
        def __enter__(self) -> "Asked":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        @property
        def requested(self) -> str | None:
            left["segments"] -= 1
            return "SIGTERM" if left["segments"] < 0 else None

    monkeypatch.setattr("jaxhpo.study.runs.StopSignals", Asked)
    return left


def test_stages_change_what_they_say_resume_and_end_as_if_never_stopped(
    file: Path, tmp_path: Path, stopping: dict[str, int]
) -> None:
    whole = run_stages(file, str(tmp_path / "whole"))
    stopped, stops = tmp_path / "stopped", 0
    for _ in range(10):
        stopping["segments"] = 0
        try:
            found = run_stages(file, str(stopped), "auto")
            break
        except Interrupted as said:
            stops += 1
            assert str(stopped) in str(said)
    assert stops == 2
    assert [outcome.best for outcome in found] == [outcome.best for outcome in whole]
    past = [history(outcome.directory) for outcome in whole]
    assert [each.start["config"]["model"]["context"] for each in past] == [16, 8, 8]
    assert [each.reports[-1]["results"][0]["step"] for each in past] == [120, 250, 290]
    assert past[1].fork["reset"] == ["data"] and past[2].fork["reset"] == []
    assert past[2].fork["name"] == "2-long" and past[2].fork["sources"][0]["step"] == 250
    rates = past[2].curves()[1]["lr"]
    assert rates[0] == 3e-3 and rates[-1] == pytest.approx(3e-3 / 40, rel=1e-5)
    stopping["segments"] = 0  # nothing is left to run
    assert [o.best for o in resume_stages(tmp_path / "whole")] == [o.best for o in whole]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[[stages]]", "[[phases]]", "no stages"),
        ('name = "long"', 'name = "pretrain"', "two stages have one name"),
        ('name = "long"', 'name = "../x"', "separators"),
        ('preset = "decay"', 'preset = "decoy"', "preset='decoy'; allowed: continue, decay"),
        ("steps = 130", "steps = 0", "steps=0; allowed"),
        ("model.context = 8", "model.contxt = 8", "perhaps you meant model.context"),
        ("model.context = 8", 'out = "x"', "out is not a stage's to set"),
        ("[model]", "steps = 5\n[model]", "steps stands above the stages"),
    ],
)
def test_a_file_that_is_not_understood_is_refused_before_anything_runs(
    old: str, new: str, said: str, file: Path, tmp_path: Path
) -> None:
    file.write_text(FILE.replace(old, new))
    with pytest.raises(UsageError, match=said.replace("[", r"\[")):
        run_stages(file, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_another_file_does_not_carry_on_what_is_there(file: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "stages.toml").write_text(FILE + "\n")
    with pytest.raises(UsageError, match="was made from another file"):
        run_stages(file, str(home), "auto")


def test_the_file_of_the_help_is_one() -> None:
    from jaxhpo.cli.stages import HELP

    lines = HELP.splitlines()
    begin = next(i for i, line in enumerate(lines) if "[schedule]" in line)
    end = next(i for i, line in enumerate(lines) if line.strip().startswith("steps are"))
    text = "\n".join(line.strip() for line in lines[begin:end])
    import tomllib

    table = tomllib.loads(text.replace("# recycle", "# "))
    assert [row["name"] for row in table["stages"]] == ["pretrain", "long", "anneal"]
    assert read_stages is not None
