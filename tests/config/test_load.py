"""A config file is read strictly: what is not understood is refused in one line, nothing is run."""

import math
from pathlib import Path

import pytest

from jaxhpo.config import PbtRun, TrainRun, from_dict, load
from jaxhpo.errors import UsageError


def write(folder: Path, text: str) -> Path:
    path = folder / "run.toml"
    path.write_text(text)
    return path


def test_a_file_overrides_defaults_and_leaves_the_rest(tmp_path: Path) -> None:
    path = write(tmp_path, 'steps = 70\n[model]\nd_model = 32\n[schedule]\nkind = "cosine"\n')
    config = load(TrainRun, path)
    assert (config.steps, config.model.d_model, config.schedule.kind) == (70, 32, "cosine")
    assert config.optimizer == TrainRun().optimizer


@pytest.mark.parametrize("name", ["multi30k", "wmt14"])
def test_the_files_of_the_translation_experiment_load(name: str) -> None:
    folder = Path(__file__).parents[2] / "experiments" / "translation"
    config = load(PbtRun, folder / f"{name}.toml")
    assert config.data.pair in (("de", "en"), ("en", "de"))
    assert "dropout.residual" in config.space


def test_whole_numbers_are_numbers_and_lists_are_tuples() -> None:
    config = from_dict(
        TrainRun, {"schedule": {"peak_lr": 1}, "dropout": {"residual": [0, 0.5]}, "steps": 60}
    )
    assert isinstance(config.schedule.peak_lr, float)
    assert config.dropout.residual == (0.0, 0.5)


def test_none_is_written_as_text() -> None:
    config = from_dict(TrainRun, {"model": {"num_kv_heads": 2}})
    assert (
        from_dict(TrainRun, {"model": {"num_kv_heads": "none"}}, config).model.num_kv_heads is None
    )


def test_clipping_may_be_infinite() -> None:
    assert (
        from_dict(TrainRun, {"optimizer": {"clip_norm": math.inf}}).optimizer.clip_norm == math.inf
    )
    assert (
        from_dict(TrainRun, {"optimizer": {"clip_norm": "Infinity"}}).optimizer.clip_norm
        == math.inf
    )


def test_a_space_may_be_nested_or_quoted(tmp_path: Path) -> None:
    quoted = write(tmp_path, '[space]\n"schedule.peak_lr" = "log(1e-4, 1e-1)"\n')
    one = load(PbtRun, quoted).space
    nested = write(tmp_path, '[space.schedule]\npeak_lr = "log(1e-4, 1e-1)"\n')
    assert one == load(PbtRun, nested).space == {"schedule.peak_lr": "log(1e-4, 1e-1)"}


def test_a_space_in_a_file_replaces_the_default_one(tmp_path: Path) -> None:
    path = write(tmp_path, '[space]\n"loss.z_loss" = "log(1e-6, 1e-3)"\n')
    assert list(load(PbtRun, path).space) == ["loss.z_loss"]


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"stpes": 3}, "unknown option stpes; perhaps you meant steps"),
        (
            {"model": {"d_modle": 3}},
            "unknown option model.d_modle; perhaps you meant model.d_model",
        ),
        ({"modle": {"d_model": 3}}, "unknown option modle"),
        ({"model": 3}, "model=3 is not a table"),
        ({"steps": 1.5}, "steps=1.5; allowed: a whole number"),
        ({"steps": "3"}, "steps='3'; allowed: a whole number"),
        ({"steps": True}, "steps=true; allowed: a whole number"),
        ({"steps": 0}, "steps=0; allowed: 1 to 2147483647"),
        ({"steps": 10**400}, "steps=(a number too large); allowed: 1 to 2147483647"),
        ({"seed": -1}, "seed=-1; allowed: 0 to 4294967295"),
        ({"schedule": {"peak_lr": "1e-3"}}, "schedule.peak_lr='1e-3'; allowed: a number"),
        ({"schedule": {"peak_lr": 10**400}}, "schedule.peak_lr=(a number too large)"),
        ({"schedule": {"peak_lr": True}}, "schedule.peak_lr=true; allowed: a number"),
        ({"schedule": {"peak_lr": math.nan}}, "schedule.peak_lr=nan"),
        ({"schedule": {"peak_lr": math.inf}}, "schedule.peak_lr=inf"),
        ({"optimizer": {"clip_norm": math.nan}}, "optimizer.clip_norm=nan"),
        ({"model": {"bias": "no"}}, "model.bias='no'; allowed: true or false"),
        ({"model": {"bias": 1}}, "model.bias=1; allowed: true or false"),
        (
            {"model": {"norm": "rsm"}},
            "model.norm='rsm'; allowed: rms, layer; perhaps you meant rms",
        ),
        ({"model": {"num_kv_heads": 1.0}}, "allowed: a whole number, or none"),
        ({"dropout": {"residual": ["a"]}}, "allowed: a number, or a list of numbers"),
        ({"dropout": {"residual": [0.1, 0.1, 0.1]}}, "dropout.residual has 3 rates"),
        ({"dropout": {"embedding": [0.1, 0.1]}}, "dropout.embedding=[0.1, 0.1]; allowed: a number"),
        ({"out": ["x"]}, "out=['x']; allowed: text, or none"),
        ({"resume": "sometimes"}, "resume='sometimes'; allowed: never, auto"),
        ({"space": {"schedule.peak_rl": "log(1, 2)"}}, "perhaps you meant schedule.peak_lr"),
        ({"space": {"schedule.peak_lr": 3}}, "space.schedule.peak_lr=3; allowed: text"),
        ({"space": {"tracker.wandb": "choice(off)"}}, "unknown dimension tracker.wandb"),
        ({"space": "log(1, 2)"}, "space='log(1, 2)'; allowed: a table"),
        ({"model": {"num_heads": 3}}, "model.num_heads=3"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(table: dict, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        from_dict(TrainRun, table)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400
    assert says in message


def test_a_population_refuses_static_dimensions_by_name() -> None:
    space = {"model.d_model": "int(8, 64)", "schedule.peak_lr": "log(1e-4, 1e-1)"}
    with pytest.raises(UsageError, match=r"pbt can't search model\.d_model"):
        from_dict(PbtRun, {"space": space})
    assert from_dict(TrainRun, {"space": space}).space == space


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("steps = 3\nsteps = 4\n", "not TOML"),
        ("steps = = 4\n", "not TOML"),
        ("steps = " + "9" * 10_000, "not TOML"),
        ("steps = " + "[" * 100_000, "nests too deep"),
        ("#" * 1_000_001, "larger than 1,000,000 bytes"),
        ('command = "train"\n', "is for command='train'; allowed here: pbt"),
    ],
)
def test_a_hostile_or_broken_file_ends_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(PbtRun, write(tmp_path, text))
    assert says in str(caught.value) and "run.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_or_binary_file_ends_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        load(PbtRun, tmp_path / "none.toml")
    with pytest.raises(UsageError, match="directory"):
        load(PbtRun, tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="UTF-8"):
        load(PbtRun, tmp_path / "binary")
