"""What is imported when, in processes of their own: starting up must stay quick."""

import json
import subprocess
import sys
import time

import pytest

HEAVY = (
    "jax", "jaxlib", "flax", "optax", "orbax", "chex", "matplotlib", "wandb", "tokenizers",
    "tensorflow_datasets", "optuna", "grain", "tyro", "rich",
)  # fmt: skip


def imported_by(statement: str) -> set[str]:
    """Packages loaded once a statement has run in a fresh interpreter."""
    code = f"{statement}\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in json.loads(out.stdout.splitlines()[-1])}


@pytest.mark.parametrize(
    "statement",
    [
        "import jaxhpo",
        "import jaxhpo; jaxhpo.PbtRun, jaxhpo.TrainRun, jaxhpo.pbt, jaxhpo.resume, jaxhpo.plan",
        "import jaxhpo.cli.pbt, jaxhpo.cli.train, jaxhpo.cli.resume, jaxhpo.cli.plan",
    ],
)
def test_importing_the_package_loads_nothing_heavy(statement: str) -> None:
    assert not imported_by(statement) & set(HEAVY)


def test_search_and_the_log_never_load_jax() -> None:
    loaded = imported_by("import jaxhpo.search.table, jaxhpo.record.log, jaxhpo.record.history")
    assert not loaded & {"jax", "jaxlib", "flax", "optax", "orbax"}


def test_the_report_never_loads_jax() -> None:
    loaded = imported_by("import jaxhpo.report.page, jaxhpo.report.figures, jaxhpo.cli.report")
    assert not loaded & {"jax", "jaxlib", "flax", "optax", "orbax"}


def test_help_comes_within_about_a_second() -> None:
    fastest = min(_seconds("--help") for _ in range(3))
    assert fastest < 1.0, "jaxhpo --help imports what it should not"


def test_help_of_a_command_comes_within_two_seconds() -> None:
    fastest = min(_seconds("pbt", "--help") for _ in range(3))
    assert fastest < 2.0


def _seconds(*argv: str) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-m", "jaxhpo", *argv], capture_output=True, check=True)
    return time.perf_counter() - begin
