"""Text from a run: what `jaxhpo sample` prints, from where, and what it refuses."""

import io
import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

import jaxhpo
from jaxhpo.cli.main import main
from jaxhpo.cli.sample import SampleQuery
from jaxhpo.cli.samples import beside, printable, stable
from jaxhpo.config.run import TrainRun
from jaxhpo.data.config import DataConfig
from jaxhpo.nn.config import ModelConfig
from jaxhpo.record.config import CheckpointConfig, TrackerConfig
from jaxhpo.schedules.config import ScheduleConfig


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a few steps."""
    from jaxhpo.study.runs import execute

    out = tmp_path_factory.mktemp("runs") / "train"
    execute(
        TrainRun(
            steps=4,
            schedule=ScheduleConfig(warmup_steps=1),
            out=str(out),
            model=ModelConfig(num_layers=1, d_model=16, num_heads=2, context=32, init_std=0.2),
            data=DataConfig(source="synthetic", batch_size=2, eval_batches=1),
            checkpoint=CheckpointConfig(every_seconds=0),
            tracker=TrackerConfig(console="off", diagnose_every=0),
        )
    )
    return out


def asked(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["sample", *argv]) == 0
    return capsys.readouterr().out


def test_the_command_and_its_call_from_python_write_the_same(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--prompt", "ab", "--tokens", "40", "--past-end", "true", "--json"]
    printed = json.loads(asked([str(run), *options], capsys))
    (found,) = jaxhpo.sample(run, SampleQuery(prompt=("ab",), tokens=40, past_end=True))
    assert printed["trial"] == 0 and printed["step"] == 4
    (row,) = printed["samples"]
    assert row["text"] == found.text and row["tokens"] == list(found.tokens)
    assert len(found.tokens) == 40 and found.prompt == "ab"
    assert row["log_prob"] == pytest.approx(found.log_prob)


def test_a_text_is_printed_as_it_is_written_and_its_numbers_after_it(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (found,) = jaxhpo.sample(run, SampleQuery(prompt=("ab",), tokens=40))
    assert main(["sample", str(run), "--prompt", "ab", "--tokens", "40"]) == 0
    shown = capsys.readouterr()
    assert shown.out == f"ab{found.text}\n"
    assert f"{found.log_prob:.3f}" in shown.err and "distinct-2" in shown.err


def test_a_grid_is_every_combination_beside_each_other(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = ["--grid", "temperature=0.2,1.2", "top-p=0.8,0.95", "--prompt", "ab", "--tokens", "30"]
    rows = json.loads(asked([str(run), *grid, "--json"], capsys))["samples"]
    settings = [(row["settings"]["temperature"], row["settings"]["top_p"]) for row in rows]
    assert settings == [(0.2, 0.8), (0.2, 0.95), (1.2, 0.8), (1.2, 0.95)]
    assert rows[0]["entropy"] < rows[3]["entropy"]
    one = SampleQuery(prompt=("ab",), tokens=30, temperature=1.2, top_p=0.8)
    assert rows[2]["tokens"] == list(jaxhpo.sample(run, one)[0].tokens)
    text = asked([str(run), *grid], capsys)
    assert "temperature 1.2  top_p 0.95" in text and "repeated-4" in text


def test_prompts_come_from_a_file_or_a_pipe_too(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "prompt").write_text("ab")
    common = [str(run), "--tokens", "9"]
    expected = asked([*common, "--prompt", "ab"], capsys)
    assert asked([*common, "--prompt-file", str(tmp_path / "prompt")], capsys) == expected
    assert asked([*common, "--ids", "97", "98"], capsys) == expected
    for words in ([], ["--prompt", "-"]):
        monkeypatch.setattr("sys.stdin", io.StringIO("ab"))
        assert asked([*common, *words], capsys) == expected


def test_beams_write_the_likeliest_text(run: Path) -> None:
    query = SampleQuery(prompt=("ab",), tokens=12, num_beams=4, past_end=True)
    (found,) = jaxhpo.sample(run, query)
    greedy = SampleQuery(prompt=("ab",), tokens=12, greedy=True, past_end=True)
    assert found.log_prob >= jaxhpo.sample(run, greedy)[0].log_prob - 1e-5
    assert found.entropy is None and len(found.tokens) == 12


def test_a_trial_in_a_checkpoint_has_the_weights_of_the_best_file(
    run: Path, tmp_path: Path
) -> None:
    import jax

    from jaxhpo.study.weights import load

    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "best")
    best, kept = load(run), load(copy, trial=0)
    assert (kept.trial, kept.step) == (best.trial, best.step)
    jax.tree.map(np.testing.assert_array_equal, kept.params, best.params)


def test_an_explanation_is_a_table_a_figure_and_json(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figure = tmp_path / "figures" / "next.png"
    words = [str(run), "--explain", "ab", "--top-p", "0.5", "--temperature", "0.7"]
    text = asked([*words, "--figure", str(figure)], capsys)
    assert "T=1.2" in text and "top_p 0.5" in text and str(figure) in text
    assert figure.read_bytes().startswith(b"\x89PNG")
    found = json.loads(asked([*words, "--json"], capsys))
    alone, kept = (found["filters"][name] for name in ("temperature alone", "top_p 0.5"))
    assert alone["kept"] == 256 > kept["kept"] and alone["mass"] == pytest.approx(1.0)
    assert 0.5 <= kept["mass"] <= 1.0
    entropies = [row["entropy"] for row in found["temperatures"].values()]
    assert entropies == sorted(entropies)
    hotter = found["temperatures"]["0.7"]["chances"]
    np.testing.assert_allclose(hotter, alone["chances"], rtol=1e-5)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--temperature", "0"], "temperature=0.0; allowed: above 0 (greedy takes the likeliest)"),
        (["--temperature", "-1"], "temperature=-1.0; allowed: above 0"),
        (["--top-p", "0"], "top_p=0.0; allowed: above 0, up to 1"),
        (["--top-p", "1.5"], "top_p=1.5; allowed: above 0, up to 1"),
        (["--top-k", "-3"], "top_k=-3; allowed: 1 or more, or 0 to keep all"),
        (["--min-p", "2"], "min_p=2.0; allowed: 0 to 1"),
        (["--repetition-penalty", "0"], "repetition_penalty=0.0; allowed: above 0"),
        (["--prompt", "a" * 33], "the prompt has 33 tokens; allowed: up to the model's context"),
        (["--prompt", ""], "the prompt is empty"),
        (["--ids", "300"], "token 300 is not in the vocabulary; allowed: 0 to 255"),
        (["--trial", "9"], "trial=9: no checkpoint of"),
        (["--tokens", "0"], "tokens=0; allowed: 1 or more"),
        (["--grid", "temperature=0"], "temperature=0.0; allowed: above 0"),
        (["--grid", "top_q=1"], "grid=top_q=1; allowed: NAME=VALUE,VALUE with temperature"),
        (["--grid", "top_k=a"], "grid=top_k=a; allowed: numbers"),
        (["--grid", "top_k=1", "top_k=2"], "grid names top_k twice"),
        (["--num-beams", "0"], "num_beams=0; allowed: 1 or more"),
        (["--num-beams", "2", "--samples", "3"], "num_beams=2 draws nothing"),
        (["--num-beams", "2", "--prompt", "a", "--tokens", "60"], "beams can't slide: at most 31"),
        (["--stop", "ab", "--prompt", "a"], "stop='ab' is 2 tokens; allowed: text of one token"),
        (["--prompt-file", "/nowhere"], "prompt_file=/nowhere: No such file"),
        (["--ids", "1", "--prompt", "a"], "three ways to say one thing"),
    ],
)
def test_a_mistake_is_one_line(
    words: list[str], says: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt = [] if {"--prompt", "--ids", "--prompt-file"} & set(words) else ["--prompt", "a"]
    assert main(["sample", str(run), *words, *prompt]) == 2
    shown = capsys.readouterr()
    assert says in shown.err and shown.err.count("\n") == 1 and not shown.out


def test_a_run_without_a_checkpoint_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    first = (run / "events.jsonl").read_bytes().splitlines(keepends=True)[0]
    (fresh / "events.jsonl").write_bytes(first)
    assert main(["sample", str(fresh), "--prompt", "a"]) == 2
    shown = capsys.readouterr().err
    assert "has no checkpoint yet" in shown and shown.count("\n") == 1


@pytest.mark.parametrize("argv", [[], ["--prompt", "a"], ["/nowhere/at-all"]])
def test_a_missing_run_is_one_line(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", *argv]) == 2
    assert capsys.readouterr().err.startswith("jaxhpo: no run directory")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of the Hugging Face format, with a tokenizer of 64 words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    source = Path(__file__).parents[1] / "pretrained/folders/mistral"
    found = Path(shutil.copytree(source, tmp_path / "model"))
    engine = Tokenizer(models.WordLevel({f"w{i}": i for i in range(64)}, unk_token="w0"))
    engine.pre_tokenizer = pre_tokenizers.Whitespace()
    engine.save(str(found / "tokenizer.json"))
    return found


def test_a_pretrained_folder_writes_what_its_logits_say(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from jaxhpo import nn, pretrained

    words = [str(folder), "--prompt", "w5 w9", "--tokens", "12", "--greedy", "true"]
    printed = json.loads(asked([*words, "--past-end", "true", "--json"], capsys))
    assert printed["trial"] is None and printed["run"] == str(folder)
    tokens = [5, 9, *printed["samples"][0]["tokens"]]
    found = pretrained.load(folder)
    logits = nn.apply(found.config, found.params, np.asarray([tokens[:-1]], np.int32))
    # its window is 5: what is remembered of the text must be as the whole text sees it
    assert np.asarray(logits)[0, 1:].argmax(-1).tolist() == tokens[2:]
    assert "top_p" in asked([str(folder), "--explain", "w5"], capsys)
    assert not (folder / "report").exists()


def test_a_pretrained_folder_that_can_not_write_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def shown(*words: str) -> str:
        assert main(["sample", str(folder), "--prompt", "w1", *words]) == 2
        text = capsys.readouterr().err
        assert text.count("\n") == 1
        return text

    assert "trial=3" in shown("--trial", "3")
    (folder / "tokenizer.json").unlink()
    assert "has no tokenizer.json" in shown()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "safe_serialization=True" in shown()


def test_columns_fit_the_width_and_hold_no_control_characters(run: Path) -> None:
    query = SampleQuery(prompt=("ab",), tokens=60, samples=3, past_end=True)
    text = beside(jaxhpo.sample(run, query), 80)
    assert max(map(len, text.splitlines())) <= 80
    assert all(char.isprintable() or char == "\n" for char in text)
    assert printable("a\x1b[31mb\tc") == "a·[31mb  c" or "\x1b" not in printable("a\x1b[31mb")


def test_half_a_character_waits_for_its_rest() -> None:
    assert stable("caf\ufffd") == "caf" and stable("caf\u00e9") == "caf\u00e9"


def test_a_query_is_plain_values() -> None:
    assert asdict(SampleQuery())["temperature"] == 0.8
