"""The README's examples run as they stand, only smaller."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from jaxhpo.cli.main import COMMANDS
from jaxhpo.cli.options import parse
from jaxhpo.config import KINDS, PbtRun, load
from jaxhpo.config.run import Run

README = (Path(__file__).parents[2] / "README.md").read_text()


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", README, re.DOTALL)
    assert found
    return found[1]


def commands() -> list[list[str]]:
    """Command lines of the README that configure a run, as words."""
    lines = re.findall(r"^jaxhpo (.*)$", README, re.MULTILINE)
    words = [shlex.split(line, comments=True) for line in lines]
    return [each[1:] if each[0] == "plan" else each for each in words]


def test_the_two_commands_stand_at_the_top() -> None:
    top = README.split("## ")[0]
    assert "pip install -e . && jaxhpo pbt" in top
    assert "pip install -e '.[test]' && pytest" in top


def test_the_command_lines_parse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("experiment.toml").write_text(block("toml"))
    assert len(commands()) >= 6
    for command, *argv in commands():
        assert command in COMMANDS
        if command in KINDS and command != "fork":  # a fork's options depend on its parent
            assert isinstance(parse(KINDS[command], argv, command), Run)


def test_the_config_file_loads(tmp_path: Path) -> None:
    path = tmp_path / "experiment.toml"
    path.write_text(block("toml"))
    assert load(PbtRun, path).model.d_model == 128


def test_the_script_is_short_and_runs(tmp_path: Path) -> None:
    script = block("python")
    assert len(script.splitlines()) <= 16
    smaller = ("steps=300", "steps=6"), ("interval=50", "interval=3"), ("layers=2", "layers=1")
    for large, small in smaller:
        assert large in script
        script = script.replace(large, small)
    out = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**os.environ, "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", str(tmp_path))},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert out.returncode == 0, out.stderr[-3000:]
    page = out.stdout.partition("report: ")[2].strip()
    assert Path(page).is_file() and Path(page).is_relative_to(tmp_path)
