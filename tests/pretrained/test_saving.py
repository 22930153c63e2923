"""Folders that are written here: which family, as a whole or not at all."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxhpo import nn, pretrained
from jaxhpo.errors import UsageError
from jaxhpo.nn.config import ModelConfig
from jaxhpo.pretrained.families import family_of

TINY = ModelConfig(num_layers=2, d_model=16, num_heads=2, vocab_size=32, context=8)
LLAMA = replace(TINY, activation="swiglu")
GPT2 = replace(TINY, norm="layer", position="learned", activation="gelu", bias=True)
BERT = replace(
    GPT2, norm_position="post", attention="bidirectional", token_types=2, readout_transform=True
)


@pytest.mark.parametrize(
    ("config", "family"),
    [
        (LLAMA, "llama"),
        (replace(LLAMA, bias=True), "llama"),
        (replace(LLAMA, window=4), "mistral"),
        (replace(LLAMA, qkv_bias=True), "qwen2"),
        (replace(LLAMA, qk_norm=True), "qwen3"),
        (GPT2, "gpt2"),
        (BERT, "bert"),
        (replace(BERT, readout_transform=False), "bert"),
    ],
)
def test_a_model_from_scratch_is_the_family_that_it_fits(config, family, tmp_path):
    params = nn.init(config, jax.random.key(0))
    found = pretrained.load(
        pretrained.save(tmp_path / "out", config, params),
        head="language" if config.readout_transform or config.attention == "causal" else "none",
    )
    assert (
        found.family
        == family
        == json.loads((tmp_path / "out/config.json").read_text())["model_type"]
    )
    jax.tree.map(np.testing.assert_array_equal, found.params, params)


@pytest.mark.parametrize(
    ("config", "family", "says"),
    [
        (TINY, None, "fit llama, the nearest family: model.activation=gelu (allowed: swiglu)"),
        (TINY, "gpt2", "model.norm=rms (allowed: layer); model.position=rotary"),
        (LLAMA, "mistrel", "family=mistrel; allowed: gpt2, llama, mistral"),
        (replace(LLAMA, logit_softcap=5.0), "llama", "model.logit_softcap=5.0 (allowed: None)"),
        (replace(LLAMA, qkv_bias=True), "llama", "model.out_bias=False (allowed: True)"),
        (replace(GPT2, num_kv_heads=1), "gpt2", "model.num_kv_heads=1 (allowed: 2)"),
        (replace(BERT, token_types=None), "bert", "model.token_types=None (allowed: 1 or more)"),
    ],
)
def test_what_does_not_fit_is_named(config, family, says):
    with pytest.raises(UsageError, match="allowed") as error:
        family_of(config, family)
    assert says in str(error.value) and "\n" not in str(error.value)


def test_large_weights_are_several_files_with_an_index(tmp_path):
    params = nn.init(LLAMA, jax.random.key(0))
    out = pretrained.save(tmp_path / "out", LLAMA, params, shard_bytes=4096)
    files = sorted(path.name for path in out.glob("model-*"))
    assert len(files) > 2 and files[0].endswith(f"-of-{len(files):05}.safetensors")
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert sorted(set(index["weight_map"].values())) == files
    assert index["metadata"]["total_size"] == nn.parameter_bytes(LLAMA)
    jax.tree.map(np.testing.assert_array_equal, pretrained.load(out).params, params)


def test_bfloat16_weights_are_written_as_they_are(tmp_path):
    half = replace(LLAMA, param_dtype="bfloat16")
    params = nn.init(half, jax.random.key(0))
    out = pretrained.save(tmp_path / "out", half, params)
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"
    found = pretrained.load(out, dtype="bfloat16").params
    jax.tree.map(np.testing.assert_array_equal, found, params)
    assert jax.tree.map(lambda x: x.dtype, found) == jax.tree.map(lambda x: x.dtype, params)


def test_a_folder_that_exists_is_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    params = nn.init(LLAMA, jax.random.key(0))
    with pytest.raises(UsageError, match="out exists; allowed: a new folder"):
        pretrained.save(tmp_path / "out", LLAMA, params)
    assert not list((tmp_path / "out").iterdir())


def test_a_failure_leaves_nothing(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.numpy.save_file", full)
    with pytest.raises(UsageError, match="out can't be written: No space left on device"):
        pretrained.save(tmp_path / "out", LLAMA, nn.init(LLAMA, jax.random.key(0)))
    assert not list(tmp_path.iterdir())


def test_parameters_of_another_model_are_refused(tmp_path: Path):
    params = nn.init(LLAMA, jax.random.key(0))
    with pytest.raises(UsageError, match=r"parameter readout is absent, and the model has \(16,"):
        pretrained.save(tmp_path / "out", replace(LLAMA, tie_embeddings=False), params)
    with pytest.raises(UsageError, match=r"embed/embedding is \(32, 16\), and the model has \(33"):
        pretrained.save(tmp_path / "out", replace(LLAMA, vocab_size=33), params)
