"""The command line as a person types it: every option by name, every mistake in one line."""

from pathlib import Path

import pytest

from jaxhpo.cli.options import dimensions, flag, group, parse
from jaxhpo.config import KINDS, PbtRun, SearchRun, TrainRun, flatten, options, replace, to_toml
from jaxhpo.config.run import ForkRun, Run
from jaxhpo.errors import UsageError
from tests.config.generated import other


def pbt(*argv: str) -> PbtRun:
    return parse(PbtRun, argv, "jaxhpo pbt")


def test_no_options_mean_the_defaults() -> None:
    assert pbt() == PbtRun()


def test_dashes_underscores_and_equals_signs_are_alike() -> None:
    spellings = [
        ("--model.d-model", "32"),
        ("--model.d_model", "32"),
        ("--model.d-model=32",),
        ("--model.d_model=32",),
    ]
    assert {pbt(*spelling) for spelling in spellings} == {parse(PbtRun, spellings[0], "")}
    assert pbt(*spellings[0]).model.d_model == 32


def test_values_of_every_kind() -> None:
    config = pbt(
        *("--model.bias", "--model.tie-embeddings", "False", "--model.num-kv-heads", "2"),
        *("--dropout.residual", "0.1", "0.2", "--optimizer.clip-norm", "inf"),
        *("--dropout.mlp", "0.5", "--out", "somewhere", "--schedule.decay-start", "None"),
    )
    assert config.model.bias and not config.model.tie_embeddings
    assert config.model.num_kv_heads == 2 and config.schedule.decay_start is None
    assert config.dropout.residual == (0.1, 0.2) and config.dropout.mlp == 0.5
    assert config.optimizer.clip_norm == float("inf") and config.out == "somewhere"


@pytest.mark.parametrize(
    "argv",
    [
        ("--space", "schedule.peak_lr=log(1e-4, 1e-1)", "loss.z_loss=uniform(0, 1e-3)"),
        ("--space=schedule.peak-lr=log(1e-4, 1e-1)", "--space", "loss.z_loss=uniform(0, 1e-3)"),
        ("--space", "schedule.peak_lr = log(1e-4, 1e-1)", "--space=loss.z-loss=uniform(0, 1e-3)"),
    ],
)
def test_a_space_is_given_in_one_option_or_several(argv: tuple[str, ...]) -> None:
    assert pbt(*argv).space == {
        "schedule.peak_lr": "log(1e-4, 1e-1)",
        "loss.z_loss": "uniform(0, 1e-3)",
    }


def test_an_empty_space_searches_nothing() -> None:
    assert pbt("--space").space == {}


def test_the_command_line_overrides_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("steps = 70\nseed = 5\n[model]\nd_model = 32\n")
    config = pbt("--steps", "80", "--config", str(path))
    assert (config.steps, config.seed, config.model.d_model) == (80, 5, 32)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_every_option_can_be_given(kind: type[Run]) -> None:
    config, words = kind(), []
    for name in options(kind):
        if name == "space" and kind in (TrainRun, ForkRun):
            continue  # they search nothing
        try:
            found = other(kind, name)
            value = dict(found.space) if name == "space" else flatten(found)[name]
            config = replace(config, name, value)
        except (AssertionError, UsageError):
            continue  # one choice only, or at odds with the values before it
        words += [flag(name), *texts(value)]
    assert len([word for word in words if word.startswith("--")]) > 0.8 * len(options(kind))
    assert parse(kind, words, "") == config


def texts(value: object) -> list[str]:
    if isinstance(value, dict):
        return [f"{name}={text}" for name, text in value.items()]
    many = value if isinstance(value, tuple) else (value,)
    return ["none" if each is None else str(each) for each in many]


def test_a_written_config_is_read_back_by_the_command(tmp_path: Path) -> None:
    config = pbt("--steps", "90", "--pbt.members", "3", "--model.num-kv-heads", "1")
    path = tmp_path / "config.toml"
    path.write_text(to_toml(config))
    assert pbt("--config", str(path)) == config


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (
            ["--model.layers", "3"],
            "unknown option --model.layers; perhaps you meant --model.num-layers",
        ),
        (["--stpes=3"], "unknown option --stpes; perhaps you meant --steps"),
        (["--peak-lr", "1"], "perhaps you meant --schedule.peak-lr"),
        (["--model.num-layers", "two"], "--model.num-layers two; allowed: a whole number"),
        (
            ["--model.num-kv-heads", "1.5"],
            "--model.num-kv-heads 1.5; allowed: a whole number, or none",
        ),
        (["--model.norm", "rsm"], "allowed: rms, layer; perhaps you meant rms"),
        (["--model.bias", "maybe"], "--model.bias maybe; allowed: true or false"),
        (["--dropout.mlp", "0.1", "x"], "allowed: a number, or a list of numbers"),
        (["--steps"], "--steps has no value; allowed: a whole number"),
        (["--steps", "3", "4"], "--steps 3 4; allowed: one value"),
        (["--steps", "3", "--steps", "4"], "--steps is given twice"),
        (["--steps", "-3"], "steps=-3; allowed: 1 to"),
        (["runs"], "unexpected argument 'runs'"),
        (["-x"], "unexpected argument '-x'"),
        (["--schedule.peak-lr", "nan"], "schedule.peak_lr=nan"),
        (["--schedule.peak-lr", "inf"], "schedule.peak_lr=inf"),
        (["--model.num-heads", "3"], "model.num_heads=3"),
        (["--space", "schedule.peak_lr"], "allowed: NAME=DISTRIBUTION"),
        (["--space", "shedule.peak_lr=log(1,2)"], "perhaps you meant schedule.peak_lr"),
        (["--space", "loss.z_loss=a", "loss.z_loss=b"], "names loss.z_loss twice"),
        (["--space", "model.d_model=int(8, 64)"], "pbt can't search model.d_model"),
        (["--config", "/nowhere/x.toml"], "No such file"),
    ],
)
def test_a_mistake_is_one_line(argv: list[str], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        pbt(*argv)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_help_explains_every_option_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    for kind in KINDS.values():
        with pytest.raises(SystemExit) as caught:
            parse(kind, ["--steps", "3", "--help"], f"jaxhpo {kind.command}")
        assert caught.value.code == 0
        text = capsys.readouterr().out
        assert f"usage: jaxhpo {kind.command}" in text and "--config" in text
        rows = text.replace("│", " ").split("--")
        for name in options(kind):
            row = next((each for each in rows if each.startswith(flag(name)[2:] + " ")), "")
            assert "(default:" in row, f"{name} is not explained"
            assert len(row.split("(default:")[0].split()) > 2, f"{name} has no docstring"


def test_grouping_keeps_negative_numbers_as_values() -> None:
    assert group(["--a.b", "-1", "--c=-2"], {"a.b": int, "c": int}) == {"a.b": ["-1"], "c": ["-2"]}


def test_a_dimension_needs_a_distribution() -> None:
    with pytest.raises(UsageError, match="NAME=DISTRIBUTION"):
        dimensions(["schedule.peak_lr="])


def test_train_takes_a_schedule_from_a_run() -> None:
    assert parse(TrainRun, ["--schedule-from", "runs/a"], "").schedule_from == "runs/a"


def test_a_search_is_named_in_short_and_at_length() -> None:
    short = parse(SearchRun, ["--scheduler", "tpe", "--trials=32"], "jaxhpo search")
    long = parse(SearchRun, ["--search.scheduler=tpe", "--search.trials", "32"], "jaxhpo search")
    assert short == long
    assert (short.search.scheduler, short.search.trials) == ("tpe", 32)
    with pytest.raises(UsageError, match=r"--search\.trials is given twice"):
        parse(SearchRun, ["--trials", "3", "--search.trials", "4"], "jaxhpo search")
    with pytest.raises(UsageError, match="unknown option --trials"):
        parse(PbtRun, ["--trials", "3"], "jaxhpo pbt")
