"""The README of launch/: its commands exist, and so do their options and the words of `jaxhpo`."""

import re
import shlex
from pathlib import Path

import pytest

from jaxhpo.cli.options import parse
from jaxhpo.config import KINDS
from jaxhpo.config.run import Run
from tests.launch.conftest import LAUNCH

README = (LAUNCH / "README.md").read_text()
BLOCKS = "\n".join(re.findall(r"^```\n(.*?)^```", README, re.DOTALL | re.MULTILINE))
LINES = [shlex.split(line) for line in BLOCKS.splitlines() if line]
TAKES = {
    "sbatch": "", "sky.sh": "--gpus --use-spot", "xpk.sh": "--tpu-type --docker-image --storage",
}  # fmt: skip
"""Options that are those of another program."""


@pytest.mark.parametrize("words", LINES, ids=lambda words: " ".join(words)[:60])
def test_a_command_names_what_exists(words: list[str], tmp_path: Path) -> None:
    del tmp_path
    own, jaxhpo = words, list[str]()
    if "--" in words:
        own, jaxhpo = words[: words.index("--")], words[words.index("--") + 1 :]
    elif words[:2] == ["docker", "run"]:
        jaxhpo = words[next(i for i, word in enumerate(words) if "/jaxhpo:" in word) + 1 :]
    files = [word for word in words if word.startswith("launch/")]
    assert all((LAUNCH.parent / file).is_file() for file in files)
    if own[0].startswith("launch/") or own[1].startswith("launch/gke"):
        name = files[0].removeprefix("launch/")
        text = (LAUNCH / name).read_text() + TAKES.get(name, "")
        for option in (word for word in own if word.startswith("--")):
            assert re.search(rf"{option.partition('=')[0]}\b", text), f"{name} has no {option}"
    if jaxhpo and jaxhpo[0] != "agent":
        assert isinstance(parse(KINDS[jaxhpo[0]], jaxhpo[1:], jaxhpo[0]), Run)
        assert "--out" in jaxhpo


def test_every_launcher_is_explained_and_said_to_be_tested() -> None:
    table = README.partition("## What each was tested with")[2]
    for path in LAUNCH.iterdir():
        if path.suffix in (".sh", ".sbatch", ".py") and path.name != "arguments.sh":
            assert f"`{path.name}`" in table
