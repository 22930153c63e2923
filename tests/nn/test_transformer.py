"""Laws of the transformer that hold for every member of its families."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxhpo import nn
from jaxhpo.errors import UsageError
from jaxhpo.nn.attention import attend
from jaxhpo.nn.config import ModelConfig, RopeConfig
from jaxhpo.nn.hyperparams import Dropout, LossTerms

TINY = ModelConfig(num_layers=2, d_model=16, num_heads=4, vocab_size=32, context=8)
LLAMA3 = RopeConfig(scaling="llama3", factor=4.0, original_context=8)
FAMILIES = {
    "llama": replace(TINY, num_kv_heads=2, activation="swiglu", tie_embeddings=False),
    "gpt2": replace(TINY, norm="layer", position="learned", activation="gelu_tanh", bias=True),
    "qwen3": replace(TINY, num_kv_heads=1, qk_norm=True, head_dim=8),
    "qwen2": replace(TINY, window=3, qkv_bias=True, rope=LLAMA3),
    "capped": replace(TINY, logit_softcap=5.0, attention_softcap=5.0, position="none"),
}
TOKENS = np.random.default_rng(0).integers(0, 32, (2, 8)).astype(np.int32)


@pytest.fixture(params=FAMILIES, scope="module")
def model(request):
    config = FAMILIES[request.param]
    return config, nn.init(config, jax.random.key(0))


def test_the_number_of_parameters_is_the_closed_formula(model):
    config, params = model
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == nn.count_parameters(config)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype("float32")}


def test_a_position_sees_none_that_follow(model):
    config, params = model
    changed = TOKENS.copy()
    changed[:, 5:] = (changed[:, 5:] + 1) % 32
    before, after = (np.asarray(nn.apply(config, params, t)) for t in (TOKENS, changed))
    np.testing.assert_array_equal(before[:, :5], after[:, :5])
    assert (before[:, 5] != after[:, 5]).any()


def test_laying_out_the_layers_and_rebuilding_them_change_no_gradient(model):
    config, params = model
    batch = {"tokens": np.concatenate([TOKENS, TOKENS[:, :1]], 1)}

    def gradient(config, unroll):
        loss = lambda params: nn.loss(config, params, batch, key=jax.random.key(1), unroll=unroll)
        return jax.jit(jax.grad(loss))(params)

    expected = gradient(config, 1)
    for found in (gradient(config, True), gradient(replace(config, remat=True), 1)):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), found, expected
        )


def test_bfloat16_computes_nearly_the_same(model):
    config, params = model
    found = nn.apply(replace(config, compute_dtype="bfloat16"), params, TOKENS)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, nn.apply(config, params, TOKENS), atol=0.05)


def test_bfloat16_parameters_are_the_float32_ones_rounded_and_norms_stay_float32(model):
    config, params = model
    half = replace(config, param_dtype="bfloat16")
    found = nn.init(half, jax.random.key(0))

    def check(path, mine, full):
        norm = "norm/" in jax.tree_util.keystr(path, simple=True, separator="/")
        assert mine.dtype == (jnp.float32 if norm else jnp.bfloat16)
        np.testing.assert_array_equal(mine, full.astype(mine.dtype))

    jax.tree_util.tree_map_with_path(check, found, params)
    exact = jax.tree.map(lambda x: x.astype(jnp.float32), found)
    logits = nn.apply(half, found, TOKENS)
    # activations are compute_dtype, float32 here: only the weights are rounded
    np.testing.assert_allclose(logits, nn.apply(config, exact, TOKENS), atol=1e-6)


def test_a_traced_rate_of_zero_drops_nothing_and_another_one_does():
    params = nn.init(TINY, jax.random.key(0))
    rates = lambda rate: Dropout(*[jnp.float32(rate)] * 4)
    run = jax.jit(lambda rate: nn.apply(TINY, params, TOKENS, dropout=rates(rate), key=KEY))
    plain = nn.apply(TINY, params, TOKENS)
    np.testing.assert_allclose(run(0.0), plain, rtol=1e-5, atol=1e-6)
    assert np.abs(run(0.3) - plain).max() > 1e-3


KEY = jax.random.key(3)


def test_a_rate_for_each_layer_reaches_its_layer():
    params = nn.init(TINY, jax.random.key(0))
    run = lambda rates: nn.apply(
        TINY, params, TOKENS, dropout=Dropout(residual=jnp.float32(rates)), key=KEY
    )
    plain = nn.apply(TINY, params, TOKENS)
    np.testing.assert_allclose(run([0.0, 0.0]), plain, rtol=1e-5, atol=1e-6)
    first, second = run([0.5, 0.0]), run([0.0, 0.5])
    assert np.abs(first - plain).max() > 1e-3 and np.abs(second - plain).max() > 1e-3
    assert np.abs(first - second).max() > 1e-3


def test_a_window_hides_what_lies_before_it():
    config = replace(TINY, num_layers=1, window=3)
    params = nn.init(replace(config, init_std=0.2), jax.random.key(0))
    changed = TOKENS.copy()
    changed[:, 2] = (changed[:, 2] + 1) % 32
    before, after = (np.asarray(nn.apply(config, params, t)) for t in (TOKENS, changed))
    same = (before == after).all((0, 2))
    assert same.tolist() == [True, True, False, False, False, True, True, True]


def test_padding_changes_nothing_that_is_real():
    config = replace(TINY, attention="bidirectional", token_types=2, readout_transform=True)
    params = nn.init(config, jax.random.key(0))
    real = np.arange(8) < 5
    found = nn.apply(config, params, TOKENS, real=np.stack([real, real]))
    alone = nn.apply(config, params, TOKENS[:, :5])
    np.testing.assert_allclose(found[:, :5], alone, atol=1e-6)
    assert np.abs(nn.apply(config, params, TOKENS)[:, :5] - alone).max() > 1e-4


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("window", [None, 3])
def test_the_fused_attention_of_accelerators_sees_the_same(window, grouped, monkeypatch):
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(2, 8, 4, 8)).astype(np.float32) for _ in range(3))
    if grouped:
        k, v = k[:, :, :2], v[:, :, :2]
    real = np.arange(8) < np.array([[8], [6]])
    segments = np.arange(8) // 3
    same = np.broadcast_to(segments[:, None] == segments, (2, 8, 8))
    for given in (None, real, same):
        sees = {"causal": True, "window": window, "real": given}
        plain = attend(q, k, v, **sees)
        with monkeypatch.context() as patch:
            patch.setattr(jax, "default_backend", lambda: "tpu")
            fused = attend(q, k, v, **sees)
        np.testing.assert_allclose(fused, plain, atol=1e-5)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"window": 0}, "model.window=0; allowed: 1 or more"),
        ({"window": 3, "attention": "bidirectional"}, "allowed: with causal attention"),
        ({"token_types": 0}, "model.token_types=0; allowed: 1 or more"),
        ({"rope": LLAMA3, "position": "learned"}, "allowed: with rotary positions"),
    ],
)
def test_what_makes_no_model_is_refused(values, says):
    with pytest.raises(UsageError, match=says):
        replace(TINY, **values)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"scaling": "ntk"}, "model.rope.scaling=ntk; allowed: none, linear, llama3, yarn"),
        ({"scaling": "yarn"}, "model.rope.scaling=yarn needs model.rope.original_context"),
        ({"factor": 0.5}, "model.rope.factor=0.5; allowed: 1 or more"),
        ({"beta_slow": 40.0}, "model.rope.beta_slow=40.0 and beta_fast=32.0; allowed: above 0"),
        ({"attention_factor": 0.0}, "model.rope.attention_factor=0.0; allowed: above 0"),
    ],
)
def test_what_stretches_no_wavelength_is_refused(values, says):
    with pytest.raises(UsageError, match=says):
        RopeConfig(**values)


def test_label_smoothing_and_z_loss_equal_optax():
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(5, 32)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, 32, 5))
    smooth = optax.smooth_labels(jax.nn.one_hot(labels, 32), 0.2)
    expected = optax.softmax_cross_entropy(logits, smooth)
    found = nn.cross_entropy(logits, labels, LossTerms(label_smoothing=jnp.float32(0.2)))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    plain = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    expected = plain + 0.1 * jax.nn.logsumexp(logits, -1) ** 2
    found = nn.cross_entropy(logits, labels, LossTerms(z_loss=jnp.float32(0.1)))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_an_id_outside_the_vocabulary_is_not_another_tokens_embedding():
    params = nn.init(TINY, jax.random.key(0))
    outside = TOKENS.copy()
    outside[0, 3] = 32
    logits = np.asarray(nn.apply(TINY, params, outside))
    assert np.isnan(logits[0, 3:]).all() and np.isfinite(logits[1]).all()


def test_projections_into_the_residual_stream_start_smaller():
    config = replace(TINY, d_model=128, num_layers=8)
    blocks = nn.init(config, jax.random.key(0))["blocks"]
    std = lambda leaf: float(np.std(leaf["kernel"]))
    assert std(blocks["mlp"]["up"]) == pytest.approx(0.02, rel=0.02)
    assert std(blocks["mlp"]["down"]) == pytest.approx(0.02 / 4, rel=0.02)
    assert std(blocks["attention"]["out"]) == pytest.approx(0.02 / 4, rel=0.02)


@pytest.mark.parametrize(
    ("config", "count"),
    [
        (
            ModelConfig(
                num_layers=12, d_model=768, num_heads=12, context=1024, vocab_size=50257,
                norm="layer", position="learned", bias=True,
            ),
            124_439_808,
        ),
        (
            ModelConfig(
                num_layers=32, d_model=4096, num_heads=32, d_mlp=11008, vocab_size=32000,
                activation="swiglu", tie_embeddings=False,
            ),
            6_738_415_616,
        ),
        (
            ModelConfig(
                num_layers=32, d_model=4096, num_heads=32, num_kv_heads=8, d_mlp=14336,
                vocab_size=128256, activation="swiglu", tie_embeddings=False,
            ),
            8_030_261_248,
        ),
    ],
    ids=["gpt2-small", "llama2-7b", "llama3-8b"],
)  # fmt: skip
def test_published_models_have_their_published_size(config, count):
    assert nn.count_parameters(config) == count


@pytest.mark.parametrize(
    ("changes", "unroll"),
    [({}, True), ({"num_layers": 4, "vocab_size": 1024}, False), ({"remat": True}, False)],
)
def test_activations_take_what_the_formula_says(changes, unroll):
    config = replace(ModelConfig(vocab_size=256), **changes)
    batch = {"tokens": jax.ShapeDtypeStruct((8, config.context + 1), np.int32)}
    params = jax.eval_shape(lambda: nn.init(config, jax.random.key(0)))
    loss = lambda p, b: nn.loss(config, p, b, key=jax.random.key(0), unroll=unroll)
    compiled = jax.jit(jax.value_and_grad(loss)).lower(params, batch).compile()
    taken = compiled.memory_analysis().temp_size_in_bytes
    expected = nn.activation_bytes(config, 8, config.context, config.remat, unroll)
    assert expected == pytest.approx(taken, rel=0.15)
