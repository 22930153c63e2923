"""What each command hands to the study and prints, with a study that only remembers."""

import dataclasses
import json
import math
import sys
import types
from pathlib import Path
from typing import Any

import pytest

import jaxhpo
from jaxhpo.cli import launch, resume
from jaxhpo.cli.main import main
from jaxhpo.cli.report import table
from jaxhpo.config import PbtRun, SearchRun, TrainRun
from jaxhpo.config.run import Run
from jaxhpo.population.config import DistributedConfig


class Remembers(types.ModuleType):
    """Stands in for `jaxhpo.study`."""

    def __init__(self, directory: Path) -> None:
        super().__init__("jaxhpo.study")
        self.directory, self.asked = directory, []

    def execute(self, config: Run) -> Any:
        self.asked.append(config)
        return types.SimpleNamespace(directory=self.directory, first=True)

    def resume(self, path: Path, distributed: Any = None) -> Any:
        self.asked += [path] if distributed is None else [path, distributed]
        return types.SimpleNamespace(directory=path, first=True)

    def plan(self, config: Run, chip: str | None = None, chips: int | None = None) -> str:
        self.asked.append(config)
        return f"{config.command}: one program, 12 MB"


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Remembers:
    stand_in = Remembers(tmp_path)
    monkeypatch.setitem(sys.modules, "jaxhpo.study", stand_in)
    monkeypatch.setattr(jaxhpo, "study", stand_in, raising=False)
    for module in (launch, resume):
        monkeypatch.setattr(module, "reported", lambda outcome: outcome)
    monkeypatch.setattr("jaxhpo.cli.report.show", lambda run, page: print(run, page))
    return stand_in


@pytest.mark.parametrize(
    ("name", "call", "kind"),
    [("pbt", "pbt", PbtRun), ("search", "run_search", SearchRun), ("train", "train", TrainRun)],
)
def test_a_command_and_its_call_from_python_ask_for_the_same(
    name: str, call: str, kind: type[Run], study: Remembers, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name, "--steps", "70"]) == 0
    getattr(jaxhpo, call)(kind(steps=70))
    assert study.asked == [kind(steps=70), kind(steps=70)]
    assert str(study.directory) in capsys.readouterr().out


def test_the_default_of_a_call_is_the_main_job(study: Remembers) -> None:
    jaxhpo.pbt()
    jaxhpo.train()
    assert study.asked == [PbtRun(), TrainRun()]


def test_resume_says_how_processes_meet_and_nothing_else(
    study: Remembers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["resume", str(tmp_path), "--distributed.num-processes", "2"]
    assert main([*words, "--distributed.process-id=1"]) == 0
    assert study.asked == [tmp_path, DistributedConfig(num_processes=2, process_id=1)]
    assert main([*words, "--steps", "3"]) == 2
    assert "unknown option --steps" in capsys.readouterr().err


def test_resume_hands_over_the_run_directory(study: Remembers, tmp_path: Path) -> None:
    assert main(["resume", str(tmp_path)]) == 0
    jaxhpo.resume(str(tmp_path))
    assert study.asked == [tmp_path, tmp_path]


def test_plan_prints_and_runs_nothing(study: Remembers, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "train", "--steps", "70"]) == 0
    assert capsys.readouterr().out == "train: one program, 12 MB\n"
    assert study.asked == [TrainRun(steps=70)]


def test_plans_and_reports_are_json_on_request(
    study: Remembers, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @dataclasses.dataclass
    class Plan:
        programs: tuple[str, ...] = ("train",)

    monkeypatch.setattr(study, "plan", lambda *_: Plan())
    assert main(["plan", "train", "--json", "--steps", "70"]) == 0
    assert json.loads(capsys.readouterr().out) == {"programs": ["train"]}
    monkeypatch.setattr("jaxhpo.report.page.write_report", lambda run: Path("page.html"))
    monkeypatch.setattr("jaxhpo.cli.report.summary_of", lambda run: SUMMARY)
    assert main(["report", str(study.directory), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["best"] == SUMMARY["best"] and found["report"] == "page.html"
    assert found["groups"]["fixed"] == {"best": 2.0, "median": None}


def test_a_mistake_never_reaches_the_study(study: Remembers) -> None:
    assert main(["pbt", "--steps", "0"]) == main(["train", "--pbt.members", "3"]) == 2
    assert not study.asked


COSTS = {"member_steps": 9600, "exploits": 22, "probe_steps": 960, "probe_share": 0.0909,
         "seconds": 100.0, "tokens_per_second": 51_200.4}  # fmt: skip
SUMMARY = {
    "status": "finished",
    "best": {"trial": 3, "step": 600, "loss": 1.75, "bits_per_byte": 2.5247},
    "baselines": {"bigram": {"loss": 2.5, "bits_per_byte": 3.6067}},
    "groups": {"pbt": {"best": 1.75, "median": 1.8}, "fixed": {"best": 2.0, "median": math.inf}},
    "gain": {"best": 0.25, "median": math.inf},
    "costs": COSTS,
}


def test_the_table_shows_the_best_beside_baseline_and_fixed_group() -> None:
    text = table(SUMMARY)
    lines = [line.split() for line in text.splitlines()]
    assert ["best", "member", "(trial", "3,", "step", "600)", "1.7500", "2.5247"] in lines
    assert ["bigram", "model", "2.5000", "3.6067"] in lines
    assert ["gain", "over", "the", "best", "fixed", "0.2500"] in lines
    assert ["fixed,", "median", "not", "finite"] in lines
    assert "22 exploits, 960 probe steps (9% of all), 100 s, 51,200 tokens/s" in text


def test_the_table_of_an_unfinished_run_leaves_out_what_is_not_known() -> None:
    costs = {**COSTS, "seconds": None, "tokens_per_second": None, "probe_steps": 0}
    empty = {"baselines": {}, "groups": {}, "gain": None, "best": None}
    text = table({**SUMMARY, **empty, "status": "unfinished", "costs": costs})
    assert text.splitlines()[-1] == "unfinished: 9,600 member steps, 22 exploits"


def test_the_table_of_one_model_says_its_loss_once_and_nothing_of_exploits() -> None:
    groups = {"trial": {"best": 1.75, "median": 1.75}}
    text = table({**SUMMARY, "groups": groups, "gain": None, "costs": {**COSTS, "exploits": 0}})
    assert text.count("1.7500") == 1
    assert "exploits" not in text


def test_the_table_names_the_values_of_the_best() -> None:
    point = {"schedule.peak_lr": 0.0123456, "model.num_layers": 2}
    lines = table({**SUMMARY, "best": {**SUMMARY["best"], "point": point}}).splitlines()
    assert "  model.num_layers  2" in lines and "  schedule.peak_lr  0.01235" in lines
