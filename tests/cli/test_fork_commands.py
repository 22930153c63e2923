"""`jaxhpo fork`, `average`, `stages` and `lineage`: what they print, and what they refuse."""

import shutil
from pathlib import Path

import pytest

from jaxhpo.cli.main import main
from jaxhpo.record.directory import RunDirectory


@pytest.fixture(scope="module")
def trunk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("cli") / "trunk"
    words = (
        "train --steps 80 --seed 4 --model.num-layers 1 --model.d-model 16 --model.num-heads 2 "
        "--model.context 16 --dropout.residual 0.1 --data.source synthetic --data.batch-size 2 "
        "--data.eval-batches 2 --schedule.warmup-steps 10 --checkpoint.every-seconds 1e6 "
        "--checkpoint.keep-steps 40 --tracker.console off --tracker.diagnose-every 0 "
        "--execution.devices 2 --out"
    )
    assert main([*words.split(), str(run)]) == 0
    return run


def test_fork_prints_rates_children_and_costs(
    trunk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "fan"
    words = f"fork {trunk} --at 40,stable-end --decay 8 --shape linear,1-sqrt --out {out}"
    assert main(words.split()) == 0
    said = capsys.readouterr().out
    assert "rate      0.003 at the last step before, 0.003 at the first after" in said
    assert "kept      params, moments, step, data, key, hyperparameters" in said
    table = [line.split() for line in said.splitlines()]
    assert ["2", "40", "8", "linear", "1,536"] in [row[:5] for row in table]
    assert ["5", "64", "8", "1-sqrt", "2,304"] in [row[:5] for row in table]
    assert "32 steps (1,024 tokens) on a trunk of 64 steps: 96 in all" in said
    assert "4 cosine runs from scratch to the same lengths: 240 steps, 2.50 times" in said
    assert (out / "report" / "learning-curves.png").exists()
    assert main(["lineage", str(out), str(trunk)]) == 0
    tree = capsys.readouterr().out
    assert tree.splitlines()[0].startswith("trunk trial 0, step 80, loss ")
    assert "├── fan trial 2, steps 40 to 48, loss" in tree and "decay_steps 16→8" in tree
    assert (trunk / "report" / "lineage-of-runs.png").exists()
    assert main(["lineage", str(out), "--out", str(tmp_path / "alone.png")]) == 0
    assert "parent run trunk is not given" in capsys.readouterr().out


def test_fork_at_tokens_is_fork_at_their_step(trunk: Path, tmp_path: Path) -> None:
    from jaxhpo.record.history import history

    out = tmp_path / "tokens"
    assert main(f"fork {trunk} --at 1.28kt --decay 4 --out {out}".split()) == 0
    assert history(out).fork["sources"][0]["step"] == 40


BAD = {
    "--at 41": r"at=41: .*trunk kept no such checkpoint; steps that were kept: 40 (fork point), 64",
    "--at 9Mt": "at=9Mt: ",
    "--at soon": "at=soon; allowed: a step, tokens such as 1.5Mt, stable-end, best, last",
    "--trial 3": "trial=3: no checkpoint of",
    "--preset extend --steps 80 --decay 99": "decay=99 is longer than the 16 steps from the fork",
    "--preset recycle": "steps=80, but the fork begins at step 80; allowed: more",
    "--decay 0": "decay=0; allowed",
    "--decay 8 --steps 90": "leave it out: the decay's length is decay",
    "--shape straight": "cosine, 1-sqrt, exponential, geometric, inverse\n",
    "--at last --decay 8": "preset=decay at step 80, where the learning rate is 0 already; fork",
    "--space schedule.peak_lr=log(1e-4,1e-1)": "--space says what to search, and this command",
    "--preset recycle --decay 8,16": "decay=8,16 with preset=recycle; allowed: one",
    "--decay 8,8": "decay=8,8 names one twice",
    "--model.d-model 32": "a fork keeps its parent's model and vocabulary, but model.d_model",
    "--model.vocab-size 300": "but model.vocab_size was",
    "--data.tokenizer bpe --data.vocab-size 257": "vocab|tokenizer",
    "--seed 5": "seed=5, but data and key of seed 4 are kept; leave seed out, or add --reset",
    "--keep data --reset data": "keep and reset both name data",
    "--reset schedule": "preset=decay changes the schedule",
    "--reset params": "--reset params; allowed",
    "--ema 0.9": "ema=0.9 weighs what average names",
    "--average 40,64 --at 40": "at and average both say where to fork",
    "--checkpoint.keep-steps 500": "checkpoint.keep_steps=500; allowed: above 64",
    "--optimizer.moment-dtype bfloat16": "add --reset moments",
}


@pytest.mark.parametrize("options", BAD)
def test_a_mistake_is_one_line_with_status_2_and_leaves_nothing(
    options: str, trunk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "child"
    assert main(["fork", str(trunk), *options.split(), "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and not out.exists()
    wanted = BAD[options]
    if "|" in wanted:
        assert any(part in said for part in wanted.split("|"))
    else:
        assert all(part in said for part in wanted.split(".*"))


def test_running_runs_and_folders_that_are_none_are_refused(
    trunk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with RunDirectory.open(trunk).lock():
        assert main(["fork", str(trunk)]) == 2
    assert "is running (process" in capsys.readouterr().err
    assert main(["fork", str(tmp_path)]) == 2
    assert "is not a run directory: it has no events.jsonl" in capsys.readouterr().err
    assert main(["fork", str(trunk) + "k"]) == 2
    assert f"perhaps you meant {trunk}" in capsys.readouterr().err
    for command in ("fork", "average", "lineage", "stages"):
        assert main([command]) == 2
        assert "usage: jaxhpo" in capsys.readouterr().err
    copy = tmp_path / "copy"
    shutil.copytree(trunk, copy)
    assert main(["lineage", str(trunk), str(copy)]) == 2
    assert "are the same run; give it once" in capsys.readouterr().err


def test_average_prints_each_checkpoint_and_the_average(
    trunk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"average {trunk} --at 40,64,last --ema 0.5 --execution.devices 2"
    assert main(words.split()) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[:2] for row in rows[1:4]] == [["40", "0.143"], ["64", "0.286"], ["80", "0.571"]]
    assert rows[4][0] == "average"


@pytest.mark.parametrize("command", ["fork", "average", "lineage", "stages"])
def test_help_is_printed(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        assert main([command, "--help"]) == 0
    except SystemExit as exit_:
        assert not exit_.code
    assert "usage: jaxhpo" in capsys.readouterr().out


def test_a_fork_is_planned_before_it_runs(trunk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "fork", str(trunk), "--decay", "8,16"]) == 0
    said = capsys.readouterr().out
    assert "24 trained" in said and "members" in said
