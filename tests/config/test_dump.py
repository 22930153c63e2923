"""A config written down is the same config when it is read again."""

import json
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from jaxhpo.config import (
    KINDS,
    PbtRun,
    TrainRun,
    flatten,
    from_dict,
    load,
    options,
    to_dict,
    to_toml,
)
from jaxhpo.config.run import Run
from jaxhpo.errors import UsageError
from tests.config.generated import TEXT, values

LEAVES = [(kind, name) for kind in KINDS.values() for name in options(kind)]


@st.composite
def configs(draw: st.DrawFn) -> Run:
    """Valid configs with a few fields changed, each by itself so that most changes are kept."""
    kind = draw(st.sampled_from(list(KINDS.values())))
    config = kind()
    for name in draw(st.lists(st.sampled_from(list(options(kind))), max_size=8, unique=True)):
        table: Any = draw(values(options(kind)[name]))
        for part in reversed(name.split(".")):
            table = {part: table}
        try:
            config = from_dict(kind, table, config)
        except UsageError:
            continue
    return config


@settings(max_examples=80, deadline=None)
@given(configs())
def test_a_config_survives_toml_exactly(config: Run) -> None:
    table = tomllib.loads(to_toml(config))
    assert table.pop("command") == config.command
    again = from_dict(type(config), table)
    assert again == config
    assert repr(again) == repr(config)


@settings(max_examples=30, deadline=None)
@given(configs())
def test_a_config_survives_a_json_log(config: Run) -> None:
    assume(config.optimizer.clip_norm != float("inf"))
    assert from_dict(type(config), json.loads(json.dumps(to_dict(config)))) == config


@given(TEXT)
def test_any_text_survives_toml(text: str) -> None:
    config = TrainRun(out=text)
    assert from_dict(TrainRun, {"out": tomllib.loads(to_toml(config))["out"]}).out == text


def test_infinity_survives_toml_and_the_text_form_of_a_log() -> None:
    config = from_dict(TrainRun, {"optimizer": {"clip_norm": float("inf")}})
    assert "clip_norm = inf" in to_toml(config)
    assert from_dict(TrainRun, {"optimizer": {"clip_norm": "Infinity"}}) == config


def test_every_value_is_written_out_so_that_new_defaults_change_nothing() -> None:
    for kind in KINDS.values():
        table = tomllib.loads(to_toml(kind()))
        for name in set(options(kind)) - {"space"}:
            inner: Any = table
            for part in name.split("."):
                inner = inner[part]


def test_a_file_written_by_one_command_loads_with_it(tmp_path: Path) -> None:
    config = replace(PbtRun(), steps=7, space={"loss.z_loss": "log(1e-6, 1e-3)"})
    path = tmp_path / "config.toml"
    path.write_text(to_toml(config))
    assert load(PbtRun, path) == config


def test_text_that_toml_cannot_hold_is_refused() -> None:
    with pytest.raises(UsageError, match="not valid Unicode"):
        to_toml(TrainRun(out="\ud800"))
    with pytest.raises(UsageError, match="is how no value is written"):
        to_toml(TrainRun(out="none"))


def test_flatten_names_every_option_and_each_dimension() -> None:
    config = PbtRun()
    expected = {name for name in options(PbtRun) if name != "space"}
    assert set(flatten(config)) == expected | {f"space.{name}" for name in config.space}


@dataclass(frozen=True)
class Odd:
    """A section whose values need care in TOML."""

    text: str = 'a"b\\c\n\t\x00\x7fé😀'
    large: float = 1e300
    small: float = 5e-324
    minus_zero: float = -0.0
    whole: int = -(2**70)


def test_odd_values_survive_toml() -> None:
    assert repr(from_dict(Odd, tomllib.loads(to_toml(Odd())))) == repr(Odd())
