"""`jaxhpo finetune` and `jaxhpo export` from the command line."""

from pathlib import Path

import pytest

from jaxhpo.cli.main import main

ROWS = "text\tlabel\n" + "".join(f"word {i}\t{i % 2}\n" for i in range(30))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "base is not given; allowed: --base DIR"),
        (["--base", "/no/where"], "base=/no/where is no folder"),
        (["--base", "."], "."),
        (["--task", "translation"], "--task translation; allowed: classification, regression"),
        (["--metric", "bleu"], "--metric bleu; allowed: loss, accuracy"),
        (["--task", "regression", "--metric", "f1"], "f1 is not measured of task=regression"),
        (["--adapter.kind", "lorra"], "--adapter.kind lorra; allowed: none, lora, dora"),
        (["--adapter.rank", "9", "--adapter.max-rank", "4"], "adapter.rank=9; allowed: 1 to"),
        (["--adapter.targets", "nothing"], "adapter.targets='nothing'"),
        (["--head.dropout", "1"], "head.dropout=1.0; allowed: 0 <= p < 1"),
        (["--epochs", "0"], "epochs=0.0; allowed: above 0"),
        (["--space", "model.d_model=choice(8, 16)"], "the shapes are the base's"),
        (["--space", "epoch=int(1, 3)"], "dimension epoch in space; perhaps you meant epochs"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_status_2(words, said, capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["finetune", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("jaxhpo: ") and error.count("\n") == 1
    assert said in error
    assert not any(tmp_path.iterdir())


def test_export_needs_a_run_and_a_new_folder(capsys, tmp_path: Path) -> None:
    assert main(["export", str(tmp_path)]) == 2
    assert "a run and a new folder are needed" in capsys.readouterr().err
    (tmp_path / "run").mkdir()
    assert main(["export", str(tmp_path / "run"), str(tmp_path)]) == 2
    assert "exists; allowed: a new folder" in capsys.readouterr().err


def test_one_command_searches_rate_batch_size_and_epochs_of_a_classifier(
    tmp_path: Path, capsys
) -> None:
    """The article's hands-on, small: base, data and search from the command line alone."""
    base, run, data = tmp_path / "base", tmp_path / "run", tmp_path / "train.tsv"
    data.write_text(ROWS)
    tiny = [
        "--tracker.console",
        "off",
        "--tracker.diagnose-every",
        "0",
        "--model.context",
        "16",
        "--execution.devices",
        "2",
    ]
    shape = ["--model.num-layers", "1", "--model.d-model", "16", "--model.num-heads", "2"]
    source = ["--data.source", "synthetic", "--data.batch-size", "2", "--data.eval-batches", "2"]
    warm = ["--schedule.warmup-steps", "2", "--steps", "8"]
    assert main(["train", *warm, *tiny, *shape, *source, "--out", str(base)]) == 0
    searched = [
        "--base", str(base), "--data", str(data), "--search", "tpe", "--trials", "4",
        "--metric", "accuracy", "--data.batch-size", "4", "--space",
        "schedule.peak_lr=log(1e-4, 1e-1)", "data.batch_size=choice(4, 8)", "epochs=int(1, 2)",
    ]  # fmt: skip
    assert main(["plan", "finetune", *searched, *tiny]) == 0
    assert "compile group" in capsys.readouterr().out
    assert main(["finetune", *searched, *tiny, "--out", str(run)]) == 0
    shown = capsys.readouterr().out
    assert "accuracy" in shown and "class shares model" in shown
    page = (run / "report" / "index.html").read_text()
    assert "Accuracy" in page and "nats per example" in page
    assert main(["resume", str(run)]) == 0
    assert main(["sample", str(run), "--prompt", "a"]) == 2
    assert "has no next token" in capsys.readouterr().err
