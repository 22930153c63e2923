"""One vocabulary of dotted names: known, static or traced, replaceable."""

import pytest

from jaxhpo.config import (
    PbtRun,
    TrainRun,
    flatten,
    is_static,
    known_names,
    options,
    replace,
    traced_names,
)
from jaxhpo.config.fields import suggest
from jaxhpo.errors import UsageError


def test_what_is_traced_is_what_trains_and_needs_no_new_program() -> None:
    for name in ("schedule.peak_lr", "optimizer.beta2", "loss.z_loss", "dropout.residual.1"):
        assert name in traced_names(PbtRun()) and not is_static(name)
    for name in ("model.d_model", "data.batch_size", "optimizer.kind", "optimizer.moment_dtype"):
        assert name not in traced_names(PbtRun()) and is_static(name)
    for name in ("steps", "pbt.members", "dropout.residual.x", "dropout.embedding.0", "nothing"):
        assert is_static(name)


def test_every_traced_name_is_known_and_none_is_static() -> None:
    config = PbtRun()
    assert set(traced_names(config)) <= set(known_names(config))
    assert not [name for name in traced_names(config) if is_static(name)]
    layers = [name for name in traced_names(config) if name.startswith("dropout.mlp.")]
    assert len(layers) == config.model.num_layers


def test_a_replaced_value_is_the_only_difference() -> None:
    before = PbtRun()
    after = replace(before, "schedule.peak_lr", 0.25)
    changed = {n for n, v in flatten(after).items() if flatten(before)[n] != v}
    assert changed == {"schedule.peak_lr"} and after.schedule.peak_lr == 0.25


def test_one_layer_of_dropout_can_be_replaced() -> None:
    config = replace(TrainRun(), "model.num_layers", 3)
    assert replace(config, "dropout.mlp.1", 0.25).dropout.mlp == (0.0, 0.25, 0.0)
    with pytest.raises(UsageError, match=r"dropout\.mlp\.0 to dropout\.mlp\.2"):
        replace(config, "dropout.mlp.3", 0.25)


def test_a_dimension_can_be_replaced() -> None:
    config = replace(PbtRun(), "space.loss.z_loss", "log(1e-6, 1e-3)")
    assert config.space["loss.z_loss"] == "log(1e-6, 1e-3)"
    assert len(config.space) == len(PbtRun().space) + 1


@pytest.mark.parametrize("name", ["schedule.peak_rl", "shedule.peak_lr", "peak_lr"])
def test_an_unknown_name_is_refused_naming_the_nearest(name: str) -> None:
    with pytest.raises(UsageError, match=r"perhaps you meant schedule\.peak_lr"):
        replace(TrainRun(), name, 0.1)


def test_a_replaced_value_is_checked_like_a_file() -> None:
    with pytest.raises(UsageError, match=r"schedule\.peak_lr='fast'"):
        replace(TrainRun(), "schedule.peak_lr", "fast")


def test_every_option_can_be_replaced_by_its_own_value() -> None:
    config = PbtRun()
    for name in set(options(PbtRun)) - {"space"}:
        assert replace(config, name, flatten(config)[name]) == config


def test_a_name_like_nothing_known_is_answered_with_where_to_look() -> None:
    assert suggest("zzzz", ["alpha", "beta"]) == "known: alpha, beta"
    assert suggest("zzzz", [f"name{i}" for i in range(20)]) == "see --help for all names"
