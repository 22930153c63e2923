"""Fine-tuning from a run's own model: data, heads, searches, metrics, and what is left on disk."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jaxhpo import nn
from jaxhpo.adapters.config import AdapterConfig
from jaxhpo.config.finetune import FinetuneRun
from jaxhpo.data.config import DataConfig, ExamplesConfig
from jaxhpo.errors import UsageError
from jaxhpo.nn.config import ModelConfig
from jaxhpo.population.config import ExecutionConfig
from jaxhpo.record.config import CheckpointConfig, TrackerConfig
from jaxhpo.record.history import history
from jaxhpo.schedules.config import ScheduleConfig
from jaxhpo.search.config import SearchConfig
from jaxhpo.study.forecast import plan
from jaxhpo.study.runs import execute
from tests.study.conftest import tiny

WORDS = ("ba", "du", "ki", "mo", "ne", "pa")


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, by the program of other files; sentences whose class is whether one word is there."""
    room = tmp_path_factory.mktemp("finetune")
    execute(tiny(100, out=str(room / "base"), schedule=ScheduleConfig(warmup_steps=2)))
    rng = np.random.default_rng(0)
    for name, count in (("train", 64), ("dev", 21)):
        lines = ["sentence\tlabel\tscore"]
        for _ in range(count):
            words = rng.choice(WORDS, 4)
            there = int("zo" in (words := [*words, rng.choice(["zo", "la"])]))
            lines.append(f"{' '.join(words)}\t{there}\t{there + 0.5}")
        (room / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    (room / "prompts.jsonl").write_text(
        "\n".join(json.dumps({"prompt": f"say {w}", "answer": w}) for w in WORDS * 4)
    )
    (room / "text.txt").write_text("\n\n".join(" ".join(rng.choice(WORDS, 9)) for _ in range(99)))
    return room


def config(room: Path, name: str, **changes) -> FinetuneRun:
    given = dict(
        base=str(room / "base"),
        out=str(room / name),
        steps=12,
        seed=3,
        model=ModelConfig(context=16),
        adapter=AdapterConfig(kind="lora", rank=2, max_rank=4),
        data=DataConfig(
            source=str(room / "train.tsv"), tokenizer="base", batch_size=4, eval_batches=8
        ),
        schedule=ScheduleConfig(kind="linear", peak_lr=1e-2, warmup_steps=0),
        checkpoint=CheckpointConfig(every_seconds=1e6),
        tracker=TrackerConfig(console="off", diagnose_every=0),
        execution=ExecutionConfig(devices=2),
        examples=ExamplesConfig(label="label"),
    )
    return FinetuneRun(**{**given, **changes})


def best(run: Path) -> dict:
    return history(run).finish["best"]


def test_all_weights_learn_a_word_and_the_metrics_say_so(room: Path) -> None:
    full = config(
        room, "full", steps=200, adapter=AdapterConfig(kind="none"), metric="accuracy", seeds=2
    )
    outcome = execute(full)
    found = best(outcome.directory)
    assert found["metrics"]["accuracy"] > 0.9 and found["metrics"]["f1"] > 0.8
    assert set(found["metrics"]) == {"accuracy", "f1", "f1-macro", "matthews"}
    past = history(outcome.directory)
    losses = [event["results"] for event in past.reports][-1]
    assert len(losses) == 2 and losses[0]["loss"] != losses[1]["loss"], "seeds differ"
    assert all(row["score"] == -row["metrics"]["accuracy"] for row in losses)
    assert next(e for e in past.of("baseline"))["name"] == "class shares"


def test_an_adapter_leaves_the_base_and_a_folder_in_pefts_format(room: Path) -> None:
    from safetensors.numpy import load_file

    outcome = execute(config(room, "lora"))
    folder = outcome.directory / "best" / "adapter"
    described = json.loads((folder / "adapter_config.json").read_text())
    assert (described["peft_type"], described["r"], described["task_type"]) == (
        "LORA",
        2,
        "SEQ_CLS",
    )
    named = load_file(folder / "adapter_model.safetensors")
    assert named["base_model.model.score.weight"].shape == (2, 16)
    assert any(name.endswith("lora_A.weight") and x.shape == (2, 16) for name, x in named.items())
    assert history(outcome.directory).start["parameters"] == 2 * 2 * 16 * 4 + 34


def test_a_trial_has_its_own_epochs_and_batch_size(room: Path) -> None:
    space = {
        "epochs": "choice(1, 2)",
        "data.batch_size": "choice(4, 8)",
        "adapter.rank": "int(1, 4)",
    }
    search = SearchConfig(scheduler="grid", levels=2, segment=10)
    searched = config(room, "epochs", steps=600, space=space, search=search, metric="accuracy")
    outcome = execute(searched)
    past = history(outcome.directory)
    assert past.start["config"]["steps"] == 2 * 64 // 4
    last = {row["trial"]: row["step"] for event in past.reports for row in event["results"]}
    points = {row["trial"]: row["point"] for event in past.plans for row in event["assignments"]}
    assert len(points) == 8
    for trial, point in points.items():
        assert last[trial] == point["epochs"] * 64 // point["data.batch_size"]
    rates = [
        (event["curves"][str(t)]["lr"], points[t])
        for event in past.reports
        for t in points
        if str(t) in event["curves"] and event["curves"][str(t)]["step"][-1:] == [last[t] - 1]
    ]
    assert len(rates) == 8
    for rate, point in rates:
        steps = point["epochs"] * 64 // point["data.batch_size"]
        assert rate[-1] == pytest.approx(1e-2 / steps, rel=1e-4), "each decays over its own steps"


def test_members_of_different_ranks_equal_their_runs_alone(room: Path) -> None:
    """One program for both ranks; chunk 1, so equal to the bit."""
    space = {"adapter.rank": "choice(1, 3)"}
    both = execute(
        config(room, "ranks", space=space, search=SearchConfig(scheduler="grid", trials=2))
    )
    alone = execute(
        config(room, "rank3", adapter=AdapterConfig(kind="lora", rank=3, max_rank=4), seeds=2)
    )
    rows = {r["trial"]: r["loss"] for r in history(both.directory).reports[-1]["results"]}
    point = {r["trial"]: r["point"] for r in history(both.directory).plans[0]["assignments"]}
    trial = next(t for t, p in point.items() if p["adapter.rank"] == 3)
    again = {r["trial"]: r["loss"] for r in history(alone.directory).reports[-1]["results"]}
    assert rows[trial] == again[trial]
    trains = [e for e in history(both.directory).of("compile") if e["program"].startswith("train")]
    assert len(trains) == 1


@pytest.mark.parametrize(
    ("task", "source", "metrics"),
    [
        ("regression", "train.tsv", {"pearson", "spearman"}),
        ("instructions", "prompts.jsonl", {"perplexity"}),
        ("language-modelling", "text.txt", {"perplexity"}),
    ],
)
def test_every_task_trains_and_is_measured(room: Path, task: str, source: str, metrics) -> None:
    label = "score" if task == "regression" else None
    data = DataConfig(source=str(room / source), tokenizer="base", batch_size=4, eval_batches=2)
    outcome = execute(
        config(room, task, task=task, data=data, examples=ExamplesConfig(label=label), steps=6)
    )
    assert set(best(outcome.directory)["metrics"]) == metrics
    assert np.isfinite(best(outcome.directory)["loss"])


def test_only_the_answers_tokens_are_in_the_loss(room: Path) -> None:
    from jaxhpo.study.setup import prepare

    data = DataConfig(source=str(room / "prompts.jsonl"), tokenizer="base", batch_size=4)
    setup = prepare(config(room, "x", task="instructions", data=data, examples=ExamplesConfig()))
    batch = setup.corpus.train.batch_at(0, 1)
    said = [
        bytes(row[mask > 0].tolist()).rstrip(b"\0").decode()
        for row, mask in zip(batch["labels"][0], batch["mask"][0], strict=True)
    ]
    assert set(said) <= set(WORDS)


def test_a_plan_is_printed_before_anything_is_written(room: Path) -> None:
    space = {"epochs": "int(1, 3)", "schedule.peak_lr": "log(1e-4, 1e-1)"}
    found = plan(config(room, "planned", steps=600, space=space))
    assert found.parameters == 2 * 2 * 16 * 4 + 34
    assert found.memory.state > 0 and "programs" in str(found)
    # of the base no gradient is formed: the operations are those that MFU counts, and fewer
    model = replace(tiny().model, vocab_size=256)
    of_all_weights = nn.flops_per_token(model, 16)
    assert found.flops < 0.9 * found.tokens * of_all_weights
    assert not (room / "planned").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"base": None}, r"base is not given"),
        ({"base": "/no/where"}, r"base=/no/where is no folder"),
        ({"model": ModelConfig(context=16, d_model=32)}, r"model\.d_model=32, and the base has 16"),
        ({"epochs": 2.0, "steps": 7}, r"steps=7 with epochs=2\.0, which makes 32 steps"),
        ({"epoch_examples": 1000}, r"epoch_examples=1000, and the training part has 64"),
        ({"space": {"adapter.rank": "int(1, 9)"}}, r"adapter\.rank=9; allowed: 1 to .*4"),
        ({"adapter": AdapterConfig(kind="lora", targets=("mlp/gate",))}, r"matches no projection"),
    ],
)
def test_what_does_not_fit_the_base_or_the_data_is_refused(room, changes, said) -> None:
    with pytest.raises(UsageError, match=said) as error:
        execute(config(room, "refused", **changes))
    assert "\n" not in str(error.value)
    assert not (room / "refused").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metric": "pearson"}, r"metric=pearson is not measured of task=classification"),
        ({"epochs": 0.0}, r"epochs=0\.0; allowed: above 0"),
        ({"space": {"model.d_model": "choice(8, 16)"}}, r"the shapes are the base's"),
        ({"space": {"epochs": "int(1, 2)"}, "search": SearchConfig(scheduler="pbt")}, r"pbt can't"),
        ({"space": {"adapter.rank": "int(1, 2)"}, "seeds": 2}, r"seeds=2 with a space"),
        ({"space": {"data.held_out": "uniform(0.1, 0.2)"}}, r"can't be compared"),
    ],
)
def test_a_config_that_contradicts_itself_is_refused(room: Path, changes, said) -> None:
    with pytest.raises(UsageError, match=said):
        config(room, "refused", **changes)


def test_the_same_command_resumes_a_run_and_another_is_refused(room: Path) -> None:
    again = config(room, "lora", resume="auto")
    if not (room / "lora").exists():
        execute(config(room, "lora"))
    assert execute(again).best["trial"] == 0
    with pytest.raises(UsageError, match=r"adapter\.alpha was 8\.0, now 4\.0"):
        execute(replace(again, adapter=replace(again.adapter, alpha=4.0)))
