"""Adapter folders: what is written is read again, and what can't be read is said in one line."""

import json

import jax
import numpy as np
import pytest

from jaxhpo import adapters
from jaxhpo.adapters.config import AdapterConfig
from jaxhpo.errors import UsageError
from jaxhpo.nn.config import ModelConfig
from jaxhpo.pretrained.peft import CONFIG, WEIGHTS, load_adapter, save_adapter

MODEL = ModelConfig(num_layers=2, d_model=8, num_heads=2, vocab_size=7)
ADAPTER = AdapterConfig(kind="adamole", rank=2, max_rank=3, experts=3, alpha=5.0, targets=(".",))


@pytest.fixture
def folder(tmp_path):
    numbers = adapters.lower(ADAPTER, steps=1)
    params = adapters.init(ADAPTER, MODEL, jax.random.key(0), numbers)
    head = {"score.weight": np.arange(6.0).reshape(2, 3)}
    save_adapter(tmp_path, ADAPTER, "llama", params, numbers, base="./base", saved=head)
    return tmp_path, params


def test_adamole_and_a_head_come_back_as_they_were(folder):
    path, params = folder
    found = load_adapter(path, "llama")
    assert (found.config.kind, found.config.experts, found.config.alpha) == ("adamole", 3, 5.0)
    assert found.config.largest_threshold == pytest.approx(1 / 3)
    for (a, ours), (b, expected) in zip(
        adapters.arrays.each_target(found.params),
        adapters.arrays.each_target(params),
        strict=True,
    ):
        assert a == b
        np.testing.assert_array_equal(ours["lora_a"], expected["lora_a"][..., :2])
        for name in ("gate", "threshold", "threshold_bias"):
            np.testing.assert_array_equal(ours[name], expected[name])
    np.testing.assert_array_equal(found.saved["score.weight"], np.arange(6.0).reshape(2, 3))
    described = json.loads((path / CONFIG).read_text())
    assert described["base_model_name_or_path"] == "./base"
    assert described["modules_to_save"] == ["score"]


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_a_missing_or_broken_file_is_named(folder, name):
    path, _ = folder
    (path / name).write_bytes(b"{")
    with pytest.raises(UsageError, match="can't be read"):
        load_adapter(path, "llama")
    (path / name).unlink()
    with pytest.raises(UsageError, match=f"has no {name}; give a folder"):
        load_adapter(path, "llama")


def test_tensors_that_are_missing_are_refused(folder):
    path, _ = folder
    with pytest.raises(UsageError, match="no tensor for a module of bert"):
        load_adapter(path, "bert")
    described = json.loads((path / CONFIG).read_text())
    (path / CONFIG).write_text(json.dumps({**described, "experts": 4}))
    with pytest.raises(UsageError, match=r"lacks lora_A.3.weight"):
        load_adapter(path, "llama")
