"""What becomes of a fine-tuned model: its weights again, an adapter folder, a merged export."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxhpo import nn, pretrained
from jaxhpo.adapters.config import AdapterConfig
from jaxhpo.cli.export import export
from jaxhpo.config.finetune import FinetuneRun
from jaxhpo.data.config import DataConfig, ExamplesConfig
from jaxhpo.errors import UsageError
from jaxhpo.nn.config import ModelConfig
from jaxhpo.population.config import ExecutionConfig
from jaxhpo.record.config import CheckpointConfig, TrackerConfig
from jaxhpo.record.history import history
from jaxhpo.schedules.config import ScheduleConfig
from jaxhpo.study.runs import execute
from jaxhpo.study.weights import load

LLAMA = ModelConfig(
    num_layers=2,
    d_model=16,
    num_heads=2,
    num_kv_heads=1,
    vocab_size=40,
    context=32,
    activation="swiglu",
    d_mlp=24,
    tie_embeddings=False,
    init_std=0.3,
)
WORDS = [f"w{i}" for i in range(36)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model in the Hugging Face format, with a tokenizer of whole words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    room = tmp_path_factory.mktemp("folder")
    vocab = {"<unk>": 0, "</s>": 1, "\n": 2, **{word: 3 + i for i, word in enumerate(WORDS)}}
    engine = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    engine.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    engine.save(str(room / "tokenizer.json"))
    params = nn.init(LLAMA, jax.random.key(1))
    pretrained.save(room / "base", LLAMA, params, "llama", room / "tokenizer.json")
    rng = np.random.default_rng(0)
    (room / "text.txt").write_text("\n\n".join(" ".join(rng.choice(WORDS, 9)) for _ in range(300)))
    rows = [f"{' '.join(rng.choice(WORDS, 4))}\t{i % 2}" for i in range(24)]
    (room / "a.tsv").write_text("\n".join(["sentence\tlabel", *rows]) + "\n")
    return room


def tuned(folder: Path, name: str, **changes) -> Path:
    run = folder / name
    if run.exists():
        return run
    given = dict(
        base=str(folder / "base"),
        out=str(run),
        task="language-modelling",
        steps=20,
        model=ModelConfig(context=16),
        adapter=AdapterConfig(kind="lora", rank=3, alpha=6.0),
        data=DataConfig(
            source=str(folder / "text.txt"), tokenizer="base", batch_size=4, eval_batches=2
        ),
        schedule=ScheduleConfig(kind="linear", peak_lr=3e-2, warmup_steps=0),
        checkpoint=CheckpointConfig(every_seconds=1e6),
        tracker=TrackerConfig(console="off", diagnose_every=0),
        execution=ExecutionConfig(devices=2),
    )
    execute(FinetuneRun(**{**given, **changes}))
    return run


def own(kind: str) -> dict:
    """What a run with an adapter of a kind is asked for, and to measure."""
    kinds = dict(rank=3, initial_rank=3, target_rank=2)
    if kind == "adamole":
        kinds = dict(rank=2, experts=2)
    tracker = TrackerConfig(console="off", diagnose_every=2 if "ada" in kind else 0)
    return {"adapter": AdapterConfig(kind=kind, **kinds), "tracker": tracker}


def held_out_loss(run: Path, model: ModelConfig, params) -> float:
    from jaxhpo.study.config_of import config_of
    from jaxhpo.study.setup import prepare

    held_out = prepare(config_of(run)).corpus.held_out
    params = jax.tree.map(jnp.asarray, params)
    loss = jax.jit(nn.loss, static_argnums=0)
    losses = [loss(model, params, jax.tree.map(lambda x, i=i: x[i], held_out)) for i in range(2)]
    return float(np.mean(losses))


@pytest.mark.parametrize("kind", ["none", "lora", "dora", "adalora"])
def test_a_runs_model_is_the_one_that_was_scored(folder: Path, kind: str) -> None:
    run = tuned(folder, kind, **own(kind))
    trained = load(run)
    scored = history(run).finish["best"]["loss"]
    assert held_out_loss(run, trained.model, trained.params) == pytest.approx(scored, rel=1e-5)
    untouched = pretrained.load(folder / "base", context=16)
    assert abs(held_out_loss(run, untouched.config, untouched.params) - scored) > 1e-3


@pytest.mark.parametrize("kind", ["lora", "dora", "adalora", "adamole"])
def test_every_adapter_trains_and_says_what_is_its_own(folder: Path, kind: str) -> None:
    run = tuned(folder, kind, **own(kind))
    past = history(run)
    names = {
        name for event in past.reports for curve in event["diagnostics"].values() for name in curve
    }
    wanted = {"adalora": "rank/attention/query/0", "adamole": "experts/attention/query/0"}
    assert kind not in wanted or wanted[kind] in names
    assert (run / "best/adapter/adapter_config.json").is_file()


def test_the_adapter_folder_on_the_base_writes_what_the_run_writes(folder: Path) -> None:
    run = tuned(folder, "lora")
    ours, theirs = load(run), load(folder / "base", adapter=run / "best" / "adapter")
    tokens = jnp.arange(3, 15)[None]
    logits = lambda model: nn.apply(model.model, jax.tree.map(jnp.asarray, model.params), tokens)
    np.testing.assert_allclose(logits(theirs), logits(ours), atol=1e-5)


def test_a_merged_export_is_a_folder_with_the_same_model(folder: Path, tmp_path: Path) -> None:
    run = tuned(folder, "lora")
    written = export(run, tmp_path / "merged")
    again, ours = pretrained.load(written), load(run)
    assert again.family == "llama" and again.tokenizer is not None
    for a, b in zip(jax.tree.leaves(again.params), jax.tree.leaves(ours.params), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    with pytest.raises(UsageError, match="merged exists; allowed: a new folder"):
        export(run, tmp_path / "merged")


def test_a_classifier_is_exported_with_its_head_beside_and_has_no_next_token(
    folder: Path, tmp_path: Path
) -> None:
    from safetensors.numpy import load_file

    data = DataConfig(source=str(folder / "a.tsv"), tokenizer="base", batch_size=4)
    run = tuned(folder, "classes", task="classification", data=data, examples=ExamplesConfig())
    with pytest.raises(UsageError, match="has no next token"):
        load(run)
    written = export(run, tmp_path / "merged")
    head = load_file(written / "head.safetensors")
    assert {name: x.shape for name, x in head.items()} == {"kernel": (16, 2), "bias": (2,)}
    about = json.loads((written / "head.json").read_text())
    assert about == {"task": "classification", "classes": ["0", "1"], "pooling": "last"}
    assert not pretrained.load(written).config.tie_embeddings, "the read-out is the base's"


def test_experts_that_the_input_chooses_are_not_merged(folder: Path) -> None:
    run = tuned(folder, "adamole", **own("adamole"))
    with pytest.raises(UsageError, match="adamole can't be merged"):
        load(run)
    assert (run / "best/adapter/adapter_model.safetensors").is_file()


def test_a_fine_tuned_model_is_a_base_again(folder: Path) -> None:
    run = tuned(folder, "again", base=str(tuned(folder, "lora")))
    assert history(run).finish is not None


def test_a_base_kept_in_eight_bits_is_merged_as_it_was_trained_on(folder: Path) -> None:
    adapter = AdapterConfig(kind="lora", rank=3, base_dtype="int8")
    run = tuned(folder, "int8", adapter=adapter)
    scored, trained = history(run).finish["best"]["loss"], load(run)
    assert held_out_loss(run, trained.model, trained.params) == pytest.approx(scored, rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": ModelConfig(context=64)}, r"model\.context=64, and the base .* has 32"),
        (
            {"data": DataConfig(source="synthetic", tokenizer="/no/tokenizer.json")},
            r"data\.tokenizer=/no/tokenizer\.json is not a file",
        ),
    ],
)
def test_what_does_not_fit_a_folder_is_refused(folder: Path, changes, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        tuned(folder, "refused", **changes)


def test_a_base_that_changed_is_noticed_on_resume(folder: Path, tmp_path: Path) -> None:
    import shutil

    base = tmp_path / "base"
    shutil.copytree(folder / "base", base)
    run = tuned(folder, "moved", base=str(base))
    past = history(run)
    before = past.start["fingerprints"]["base"]
    params = nn.init(LLAMA, jax.random.key(2))
    shutil.rmtree(base)
    pretrained.save(base, LLAMA, params, "llama", folder / "tokenizer.json")
    from jaxhpo.study.bases import open_base
    from jaxhpo.study.config_of import config_of

    assert open_base(replace(config_of(run))).fingerprint != before
