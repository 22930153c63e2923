"""A tiny model learns a toy translation: letter by letter, capitals for small ones, shifted."""

import itertools
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from jaxhpo import nn
from jaxhpo.cli.main import main
from jaxhpo.cli.translate import TranslateQuery, translate
from jaxhpo.config.finetune import FinetuneRun
from jaxhpo.config.run import TrainRun
from jaxhpo.data.config import DataConfig
from jaxhpo.errors import UsageError
from jaxhpo.nn.config import ModelConfig
from jaxhpo.optimizers.config import OptimizerConfig
from jaxhpo.population.config import ExecutionConfig
from jaxhpo.record.config import CheckpointConfig, TrackerConfig
from jaxhpo.record.history import history
from jaxhpo.schedules.config import ScheduleConfig
from jaxhpo.study.runs import execute
from jaxhpo.study.translating import Translator, bleu
from jaxhpo.study.tuning import opened
from jaxhpo.study.weights import load

SOURCES = [" ".join(each) for each in itertools.product("abcde", repeat=4)]
TARGETS = [source.translate(str.maketrans("abcde", "BCDEA")) for source in SOURCES]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("translation")
    order = np.random.default_rng(0).permutation(len(SOURCES))
    for name, part in zip(("train", "val", "test"), np.split(order, [565, 595]), strict=True):
        for language, texts in (("de", SOURCES), ("en", TARGETS)):
            (folder / f"{name}.{language}").write_text("".join(f"{texts[at]}\n" for at in part))
    config = TrainRun(
        steps=300,
        out=str(folder / "run"),
        model=ModelConfig(num_layers=1, d_model=32, num_heads=2, context=32),
        schedule=ScheduleConfig(peak_lr=0.02, warmup_steps=10),
        optimizer=OptimizerConfig(weight_decay=0.0),
        data=DataConfig(source=str(folder), languages="de-en", batch_size=8, eval_batches=2),
        checkpoint=CheckpointConfig(every_seconds=1e6),
        tracker=TrackerConfig(console="off"),
        execution=ExecutionConfig(devices=1),
    )
    execute(config)
    return folder / "run"


def test_a_run_learns_to_translate_what_it_has_not_seen(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "test.en"
    found = translate(run, TranslateQuery(out=str(out)))
    assert (found.part, found.languages, len(found.texts)) == ("test", "de-en", 30)
    assert found.references == tuple(TARGETS[SOURCES.index(each)] for each in found.sources)
    right = sum(a == b for a, b in zip(found.texts, found.references, strict=True))
    assert right >= 25 and found.bleu is not None and found.bleu > 80
    assert out.read_text() == "".join(f"{text}\n" for text in found.texts)
    past = history(run)
    (baseline,) = past.of("baseline")
    assert past.finish is not None and past.finish["best"]["loss"] < baseline["loss"] / 2
    (sample,) = past.of("sample")
    assert sample["prompt"] in SOURCES and "\0" not in sample["text"]


def test_a_translation_is_what_the_model_finds_likeliest_token_by_token(run: Path) -> None:
    trained = load(run)
    sources = ("e d c b", "a", "b a a")
    found = translate(run, TranslateQuery(text=sources)).texts
    params = jax.device_put(trained.params)
    apply = jax.jit(lambda tokens: nn.apply(trained.model, params, tokens))
    for source, text in zip(sources, found, strict=True):
        tokens = [*source.encode(), 0]
        begun = len(tokens)
        while len(tokens) < 32 and (tokens[-1] != 0 or len(tokens) == begun):
            padded = np.array([tokens + [0] * (32 - len(tokens))], np.int32)
            tokens.append(int(np.argmax(apply(padded)[0, len(tokens) - 1])))
        assert text == trained.tokenizer.decode(tokens[begun:])


def test_beams_and_the_command_line_give_the_same_kind_of_answer(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--part", "val", "--most", "4", "--num-beams", "2"]
    assert main(["translate", str(run), *options, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["texts"]) == 4 and found["bleu"] > 50
    assert main(["translate", str(run), *options]) == 0
    said = capsys.readouterr().out
    assert "de-en, 4 pairs of val\n" in said and f"BLEU {found['bleu']:.2f}  (nrefs:1|" in said
    assert main(["translate", str(run), "--part", "dev"]) == 2
    assert "part=dev: " in capsys.readouterr().err
    assert main(["translate", str(run), "--text", " "]) == 2
    assert "is empty" in capsys.readouterr().err


def test_bleu_is_sacrebleus_own_and_the_formulas() -> None:
    import sacrebleu

    texts, references = ["a b c d e", "the cat sat"], ["a b c d f", "the cat sat down here"]
    found = bleu(texts, references)
    assert found.bleu == sacrebleu.corpus_bleu(texts, [references]).score
    assert found.signature == (
        f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:{sacrebleu.__version__}"
    )
    # one sentence of five words of which the last is wrong: precisions 4/5, 3/4, 2/3 and 1/2
    assert bleu(texts[:1], references[:1]).bleu == pytest.approx(100 * 0.2**0.25)


def test_a_model_of_text_does_not_translate_and_bleu_says_what_it_needs(monkeypatch) -> None:
    with pytest.raises(UsageError, match=r"runs/a has not learnt to translate"):
        Translator(SimpleNamespace(run="runs/a", config=TrainRun()))
    with pytest.raises(UsageError, match=r"use a table with task=instructions"):
        opened(FinetuneRun(base="runs/a", data=DataConfig(languages="de-en")))
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics.bleu", None)
    with pytest.raises(UsageError, match=r"not installed: pip install sacrebleu"):
        bleu(["a"], ["a"])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"most": 0}, r"most=0; allowed: 1 or more"),
        ({"text": ("a",), "part": "test"}, r"give one of the two"),
        ({"out": "."}, r"out=\. exists"),
        ({"num_beams": 0}, r"num_beams=0"),
    ],
)
def test_a_query_that_makes_no_sense_is_refused(given, said) -> None:
    with pytest.raises(UsageError, match=said):
        TranslateQuery(**given)
