"""The image: what it is built from, what goes in, who runs in it. No Docker is needed."""

import re
import tomllib

from tests.launch.conftest import LAUNCH, ROOT

LINES = [
    line
    for line in (LAUNCH / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    if line and not line.startswith("#")
]
STEPS = [line.split(None, 1) for line in LINES]


def arguments(instruction: str) -> list[str]:
    return [rest for first, rest in STEPS if first == instruction]


def test_the_base_is_pinned_and_new_enough() -> None:
    (base,) = arguments("FROM")
    version = re.fullmatch(r"python:(\d+)\.(\d+)\.\d+-slim-[a-z]+", base)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    least = tuple(map(int, project["requires-python"].removeprefix(">=").split(".")))
    assert version and (int(version[1]), int(version[2])) >= least


def test_the_extras_that_are_built_are_the_project_s() -> None:
    head = (LAUNCH / "Dockerfile").read_text().split("FROM")[0]
    named = set(re.findall(r"--build-arg EXTRA=(\w+)", head))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert named == {"cuda", "tpu"} and named <= set(project["optional-dependencies"])
    assert any(".${EXTRA:+[$EXTRA]}" in run for run in arguments("RUN"))


def test_nothing_secret_and_nothing_that_lies_about_goes_in() -> None:
    assert not arguments("ADD")
    copied = {word for line in arguments("COPY") for word in line.split()[:-1]}
    assert copied == {"pyproject.toml", "README.md", "LICENSE", "jaxhpo", "launch"}
    given = [line.split("=")[0] for line in [*arguments("ARG"), *arguments("ENV")]]
    assert given == ["EXTRA", "PYTHONUNBUFFERED"]
    ignored = (LAUNCH / "Dockerfile.dockerignore").read_text().splitlines()
    rules = [line for line in ignored if line and not line.startswith("#")]
    assert rules[0] == "*" and {rule[1:] for rule in rules if rule[0] == "!"} == copied
    assert not re.search(r"(?i)(key|token|secret|password)\s*=", "\n".join(LINES))


def test_the_image_runs_a_process_as_an_ordinary_user() -> None:
    assert arguments("USER") == ["jaxhpo"]
    assert arguments("ENTRYPOINT") == ['["launch/process.sh"]']
    order = [first for first, _ in STEPS]
    assert order.index("USER") > max(i for i, first in enumerate(order) if first == "RUN")
