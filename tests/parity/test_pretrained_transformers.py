"""Folders that the transformers library writes and reads, against its own logits and gradients."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxhpo import nn, pretrained

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tests.pretrained.make_folders import (  # noqa: E402
    CAUSAL,
    ENCODER,
    FOLDERS,
    LLAMA3,
    MASKED,
    ROTARY,
    inputs,
    logits,
    random_model,
)

YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0,
        "original_max_position_embeddings": 8}  # fmt: skip
VARIANTS = {
    **FOLDERS,
    "gpt2-untied": ("GPT2", "LMHeadModel", {**FOLDERS["gpt2"][2], "tie_word_embeddings": False,
                    "activation_function": "gelu", "n_inner": 48}),
    "llama-biases-tied": ("Llama", CAUSAL, {**ROTARY, "attention_bias": True, "mlp_bias": True,
                          "tie_word_embeddings": True, "num_key_value_heads": 1}),
    "llama-linear": ("Llama", CAUSAL, {**ROTARY, "rope_parameters": {
        "rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}}),
    "llama-dynamic": ("Llama", CAUSAL, {**ROTARY, "rope_parameters": {
        "rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}}),
    "llama-yarn": ("Llama", CAUSAL, {**ROTARY, "rope_parameters": YARN}),
    "llama-yarn-mscale": ("Llama", CAUSAL, {**ROTARY, "rope_parameters": {
        **YARN, "mscale": 1.0, "mscale_all_dim": 0.5, "truncate": False, "beta_fast": 4.0}}),
    "llama-yarn-factor": ("Llama", CAUSAL, {**ROTARY, "rope_parameters": {
        **YARN, "attention_factor": 1.3}}),
    "qwen2-window": ("Qwen2", CAUSAL, {**ROTARY, "use_sliding_window": True, "sliding_window": 5,
                     "max_window_layers": 0}),
    "qwen3-biases": ("Qwen3", CAUSAL, {**ROTARY, "head_dim": 8, "attention_bias": True}),
    "bert-untied": ("Bert", MASKED, {**ENCODER, "tie_word_embeddings": False,
                    "hidden_act": "gelu_new"}),
}  # fmt: skip
"""Name -> family, head and config."""


@pytest.fixture(scope="module", params=VARIANTS)
def pair(request, tmp_path_factory):
    """(the reference, its folder in shards, what it is asked, what is loaded and computed here)."""
    family, head, config = VARIANTS[request.param]
    model = random_model(family, head, **config)
    folder = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    given, loaded = inputs(family), pretrained.load(folder)
    labels = np.random.default_rng(1).integers(4, 64, given["tokens"].shape)
    weights = given.get("real", np.ones_like(labels)).astype(np.float32)
    batch = {**ours(given), "labels": jnp.asarray(labels, jnp.int32), "mask": weights}
    return model, folder, given, loaded, batch, *run(loaded.config, loaded.params, batch)


def ours(given):
    """The inputs as `nn.apply` takes them."""
    found = {name: jnp.asarray(values, jnp.int32) for name, values in given.items()}
    return {**found, "real": found["real"].astype(bool)} if "real" in found else found


@partial(jax.jit, static_argnums=0)
def run(config, params, batch):
    """Logits and gradients, in one program."""
    asked = {name: values for name, values in batch.items() if name in ("real", "token_types")}
    grads = jax.grad(lambda params: nn.loss(config, params, batch))(params)
    return nn.apply(config, params, batch["tokens"], **asked), grads


def assert_same_logits(found, expected, given):
    real = given.get("real", np.ones(found.shape[:2], bool))
    assert np.abs(expected[real]).max() > 1.0  # large enough for a difference to show
    np.testing.assert_allclose(found[real], expected[real], atol=1e-4, rtol=0)


def test_logits_are_equal_through_load_forward_save_and_load_there(pair, tmp_path):
    model, _, given, loaded, _, found, _ = pair
    with torch.no_grad():
        expected = logits(model, given).numpy()
    assert_same_logits(np.asarray(found), expected, given)
    out = pretrained.save(
        tmp_path / "out", loaded.config, loaded.params, loaded.family, special=loaded.special,
        shard_bytes=20_000,
    )  # fmt: skip
    kind = json.loads((out / "config.json").read_text())["architectures"]
    assert kind == [type(model).__name__]
    again, report = getattr(transformers, kind[0]).from_pretrained(
        out, attn_implementation="eager", output_loading_info=True
    )
    assert not any(report.values())
    with torch.no_grad():
        assert_same_logits(logits(again.eval(), given).numpy(), expected, given)


def test_gradients_are_equal(pair, tmp_path):
    """Each tensor's, by the name that it has in a folder: the gradient is saved like a model."""
    model, _, given, loaded, batch, _, grads = pair
    labels, weights = np.asarray(batch["labels"]).astype(np.int64), np.asarray(batch["mask"])
    model.zero_grad()
    losses = torch.nn.functional.cross_entropy(
        logits(model, given).transpose(1, 2), torch.tensor(labels), reduction="none"
    )
    (losses * torch.tensor(weights)).sum().div(float(weights.sum())).backward()
    out = pretrained.save(tmp_path / "out", loaded.config, grads, loaded.family)
    found = load_file(out / "model.safetensors")
    named = model.named_parameters()
    expected = {name: weight.grad.numpy() for name, weight in named if weight.grad is not None}
    assert not expected.keys() - found.keys()
    for name, gradient in expected.items():
        # float32 sums of two programs; keys' biases shift all scores alike, and without rotary
        # positions theirs is zero but for rounding: all others are between 1e-3 and 1
        largest = max(np.abs(gradient).max(), 1e-3)
        close = 1e-4 * largest
        np.testing.assert_allclose(found[name], gradient, atol=close, rtol=0, err_msg=name)


def test_the_old_form_of_a_config_means_the_same(tmp_path):
    """What the library wrote until its fifth version, with a body saved without its head."""
    model = random_model("Llama", CAUSAL, **ROTARY, rope_parameters=LLAMA3)
    model.model.save_pretrained(tmp_path / "body")
    path = tmp_path / "body/config.json"
    table = json.loads(path.read_text())
    table["torch_dtype"] = table.pop("dtype")
    rope = table.pop("rope_parameters")
    table["rope_theta"] = rope.pop("rope_theta")
    table["rope_scaling"] = {"type": rope.pop("rope_type"), **rope}
    path.write_text(json.dumps(table))
    given = inputs("Llama")
    with torch.no_grad():
        expected = model.model(torch.tensor(given["tokens"])).last_hidden_state.numpy()
    loaded = pretrained.load(tmp_path / "body", head="none")
    found = nn.states(loaded.config, loaded.params, ours(given)["tokens"])
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_weights_are_read_to_the_bit(dtype, tmp_path):
    model = random_model("Qwen2", CAUSAL, **ROTARY).to(getattr(torch, dtype))
    model.save_pretrained(tmp_path / "half")
    found = pretrained.load(tmp_path / "half").params["blocks"]["mlp"]["up"]["kernel"]
    expected = [layer.mlp.up_proj.weight.float().detach().numpy().T for layer in model.model.layers]
    np.testing.assert_array_equal(found, np.stack(expected))


def test_weights_saved_here_in_bfloat16_are_read_there(tmp_path):
    loaded = pretrained.load("tests/pretrained/folders/qwen3", dtype="bfloat16")
    out = pretrained.save(tmp_path / "out", loaded.config, loaded.params, loaded.family)
    model = transformers.AutoModelForCausalLM.from_pretrained(out)
    assert model.dtype == torch.bfloat16
    found = model.model.layers[1].self_attn.q_proj.weight.detach().float().numpy().T
    mine = loaded.params["blocks"]["attention"]["query"]["kernel"][1]
    np.testing.assert_array_equal(found, np.asarray(mine, np.float32))


@pytest.mark.parametrize("head", ["none", "language"])
def test_an_encoder_without_its_head_is_written_as_the_bare_model(head, tmp_path):
    loaded = pretrained.load("tests/pretrained/folders/bert", head=head)
    out = pretrained.save(tmp_path / "out", loaded.config, loaded.params, loaded.family)
    model = transformers.AutoModel.from_pretrained(out, add_pooling_layer=False)
    assert type(model).__name__ == "BertModel"
    given = inputs("Bert")
    rest = {name: values for name, values in ours(given).items() if name != "tokens"}
    found = nn.states(loaded.config, loaded.params, ours(given)["tokens"], **rest)
    with torch.no_grad():
        expected = model.eval()(
            torch.tensor(given["tokens"]),
            attention_mask=torch.tensor(given["real"]).long(),
            token_type_ids=torch.tensor(given["token_types"]).long(),
        ).last_hidden_state.numpy()
    real = given["real"]
    np.testing.assert_allclose(np.asarray(found)[real], expected[real], atol=1e-4)
