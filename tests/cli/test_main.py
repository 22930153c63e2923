"""What `jaxhpo` prints and how it ends."""

import errno
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import jaxhpo
from jaxhpo.cli import main as cli
from jaxhpo.cli.main import COMMANDS, explain, main
from jaxhpo.cli.options import flag
from jaxhpo.config import PbtRun, options
from jaxhpo.errors import Diverged, Interrupted, UsageError


def test_alone_it_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    for argv in ([], ["--help"], ["-h"]):
        assert main(argv) == 0
        text = capsys.readouterr().out
        assert all(f"\n  {name} " in text for name in COMMANDS)


def test_every_command_is_a_module_with_a_main() -> None:
    for name, (module, line) in COMMANDS.items():
        assert callable(importlib.import_module(module).main), name
        assert line and len(line) < 80


def test_every_public_name_is_there() -> None:
    for name in jaxhpo.__all__:
        assert getattr(jaxhpo, name) is not None


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("jaxhpo ")


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["pbtt"], "unknown command pbtt; perhaps you meant pbt"),
        (["pbt", "--model.num-layer", "3"], "perhaps you meant --model.num-layers"),
        (["plan", "report"], "nothing to plan for report"),
        (["resume"], "no run directory; usage: jaxhpo resume RUN"),
        (["resume", "/nowhere/at-all"], "no run directory /nowhere/at-all"),
        (["report", "a", "b"], "more than one argument"),
        (["report", "--fast", "a"], "unknown option --fast"),
    ],
)
def test_a_mistake_ends_with_status_2_and_one_line(
    argv: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    shown = capsys.readouterr()
    assert says in shown.err and shown.err.startswith("jaxhpo: ")
    assert shown.err.count("\n") == 1 and not shown.out


def test_a_mistyped_run_directory_names_the_nearest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pbt-0001").mkdir()
    assert main(["resume", str(tmp_path / "pbt-001")]) == 2
    assert f"perhaps you meant {tmp_path / 'pbt-0001'}" in capsys.readouterr().err


def wrapped(error: Exception) -> Exception:
    try:
        try:
            raise error
        except Exception as inner:
            raise RuntimeError("the store failed") from inner
    except RuntimeError as outer:
        return outer


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (UsageError("steps=0; allowed: 1 or more"), 2, "steps=0"),
        (Diverged("no member is finite"), 3, "no member"),
        (Interrupted("SIGTERM"), 75, "SIGTERM; carry on with: jaxhpo resume RUN"),
        (Interrupted("saved; jaxhpo resume runs/a"), 75, "saved; jaxhpo resume runs/a"),
        (Interrupted("jaxhpo resume runs/a"), 75, "saved; carry on with: jaxhpo resume runs/a"),
        (KeyboardInterrupt(), 130, "stopped"),
        (MemoryError(), 1, "out of memory; try a lower --execution.chunk"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating"), 1, "out of memory"),
        (
            OSError(errno.ENOSPC, "No space left on device", "runs/a/x"),
            1,
            "disk is full (runs/a/x)",
        ),
        (wrapped(OSError(errno.ENOSPC, "No space left on device")), 1, "disk is full;"),
    ],
)
def test_each_failure_has_its_status_and_one_line(
    error: BaseException,
    status: int,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(argv: list[str]) -> int:
        raise error

    monkeypatch.setattr(cli, "_dispatch", fail)
    assert main([]) == status
    shown = capsys.readouterr().err
    assert says in shown and shown.count("\n") == 1 and "Traceback" not in shown


def test_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(argv: list[str]) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "_dispatch", fail)
    with pytest.raises(ZeroDivisionError):
        main([])
    assert explain(ZeroDivisionError())[0] is None


def test_debugging_shows_where_an_error_comes_from(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JAXHPO_DEBUG", "1")
    assert main(["pbtt"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_the_advice_on_memory_names_options_that_exist() -> None:
    line, _ = explain(MemoryError())
    advised = {word.strip(",") for word in (line or "").split() if word.startswith("--")}
    assert advised and advised <= {flag(name) for name in options(PbtRun)}


def test_a_closed_pipe_is_no_error() -> None:
    command = f"{sys.executable} -m jaxhpo pbt --help | head -1; echo ${{PIPESTATUS[0]}}"
    out = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert "Traceback" not in out.stderr and "BrokenPipe" not in out.stderr


def test_python_dash_m_is_the_same_command() -> None:
    out = subprocess.run(
        [sys.executable, "-m", "jaxhpo", "pbt", "--steps", "x"], capture_output=True, text=True
    )
    assert out.returncode == 2
    assert out.stderr == "jaxhpo: --steps x; allowed: a whole number\n"
