"""Every update rule equals optax's, sees one layer at a time, and keeps what it says."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optax import contrib

from jaxhpo import nn, optimizers
from jaxhpo.optimizers import OptimizerConfig
from jaxhpo.optimizers.config import NUMBERS
from jaxhpo.optimizers.masks import is_matrix, named, renamed, role_of
from tests.optimizers.conftest import (
    MODEL,
    RATE,
    SHAPES,
    assert_close,
    chain_of,
    draw,
    reference,
    run,
    small_case,
    unstacked,
)

INF = float("inf")
PLAIN = dict(weight_decay=0.0, clip_norm=INF)
beta = st.floats(0.0, 0.999)
examples = settings(max_examples=25, deadline=None)

SGD = {
    nesterov: reference(lambda momentum, n=nesterov: optax.sgd(RATE, momentum, n))
    for nesterov in (False, True)
}
LION = reference(lambda beta1, beta2: optax.lion(RATE, beta1, beta2, weight_decay=0.0))


@examples
@given(momentum=beta.filter(bool), nesterov=st.booleans(), seed=st.integers(0, 999))
def test_sgd_equals_optax(momentum, nesterov, seed):
    config = OptimizerConfig(kind="sgd", momentum=momentum, nesterov=nesterov, **PLAIN)
    case = small_case(seed)
    assert_close(run(config, *case)[0], SGD[nesterov]([momentum], *case))


def test_sgd_without_momentum_is_minus_the_rate_times_the_gradient(params, gradients):
    found, _ = run(OptimizerConfig(kind="sgd", momentum=0.0, **PLAIN), params, gradients)
    assert_close(found, [jax.tree.map(lambda g: -RATE * g, each) for each in gradients])


@examples
@given(beta1=beta, beta2=beta, seed=st.integers(0, 999))
def test_lion_equals_optax(beta1, beta2, seed):
    config = OptimizerConfig(kind="lion", beta1=beta1, beta2=beta2, **PLAIN)
    case = small_case(seed)
    assert_close(run(config, *case)[0], LION([beta1, beta2], *case))


def _adafactor(relative, size):
    return reference(
        lambda exponent, eps, clip: optax.adafactor(
            RATE,
            decay_rate=exponent,
            eps=eps,
            clipping_threshold=clip,
            min_dim_size_to_factor=size,
            multiply_by_parameter_scale=relative,
        )
    )


ADAFACTOR = {
    (relative, size): _adafactor(relative, size) for relative, size in [(True, 2), (False, 8)]
}


@examples
@given(
    exponent=st.floats(0.5, 1.0),
    eps=st.sampled_from([1e-30, 1e-8, 1e-3]),
    clip=st.floats(0.1, 3.0),
    kind=st.sampled_from(list(ADAFACTOR)),
    seed=st.integers(0, 999),
)
def test_adafactor_equals_optax_on_unstacked_layers(exponent, eps, clip, kind, seed):
    config = OptimizerConfig(
        kind="adafactor",
        adafactor_exponent=exponent,
        adafactor_eps=eps,
        adafactor_clip=clip,
        adafactor_relative=kind[0],
        adafactor_min_dim=kind[1],
        **PLAIN,
    )
    params, gradients = small_case(seed)
    found, _ = run(config, params, gradients)
    apart = unstacked(params), [unstacked(g) for g in gradients]
    assert_close([unstacked(u) for u in found], ADAFACTOR[kind]([exponent, eps, clip], *apart))


def _muon(consistent, nesterov=False):
    def dimensions(tree):
        axes = {n: contrib.MuonDimensionNumbers() if is_matrix(n) else None for n in named(tree)}
        return renamed(axes, tree)

    return reference(
        lambda momentum, rms, ratio: contrib.muon(
            RATE,
            beta=momentum,
            nesterov=nesterov,
            adam_b1=0.9375,
            adam_b2=0.9375,
            adam_learning_rate=ratio * RATE,
            consistent_rms=rms if consistent else None,
            muon_weight_dimension_numbers=dimensions,
        ),
        "float32",
    )


MUON = {consistent: _muon(consistent) for consistent in (True, False)}
AHEAD = _muon(False, nesterov=True)
eighths = st.integers(0, 255).map(lambda i: i / 256)  # exact in float32, as 1 - beta is


@examples
@given(momentum=eighths, rms=st.floats(0.1, 1.0) | st.none(), ratio=st.floats(0.1, 3.0))
def test_muon_equals_optax_on_unstacked_layers(momentum, rms, ratio):
    config = OptimizerConfig(
        kind="muon",
        momentum=momentum,
        nesterov=False,
        muon_rms=rms,
        muon_adam_lr=ratio,
        beta1=0.9375,
        beta2=0.9375,
        **PLAIN,
    )
    params, gradients = small_case(0)
    found, _ = run(config, params, gradients)
    apart = unstacked(params), [unstacked(g) for g in gradients]
    expected = MUON[rms is not None]([momentum, rms or 0.0, ratio], *apart)
    # both are float32, and five iterations multiply a rounding error by up to 3.4 each
    assert_close([unstacked(u) for u in found], expected, 2e-5)


def test_muon_looks_ahead_as_optax_does():
    config = OptimizerConfig(kind="muon", momentum=0.9375, muon_rms=None, **PLAIN)
    params, gradients = small_case(0)
    found, _ = run(config, params, gradients)
    expected = AHEAD([0.9375, 0.0, 1.0], unstacked(params), [unstacked(g) for g in gradients])
    # optax's Nesterov reaches its Adam part too; ours is plain AdamW there
    matrices = lambda tree: {n: x for n, x in named(unstacked(tree)).items() if is_matrix(n)}
    apart = [{n: x for n, x in named(e).items() if is_matrix(n)} for e in expected]
    assert_close([matrices(u) for u in found], apart, 2e-5)


EVERYTHING = dict(
    weight_decay=0.3, clip_value=0.2, clip_norm=1.0, decay_rules=("mlp/down=0.5", "embed/=0.25")
)
FACTORED = dict(kind="adafactor", adafactor_min_dim=2)


@pytest.mark.parametrize("clip", [dict(clip_tensor=0.5), dict(clip_role=0.5)], ids=str)
@pytest.mark.parametrize(
    "kind", [*({"kind": kind} for kind in NUMBERS if kind != "adafactor"), FACTORED], ids=str
)
def test_stacked_layers_are_trained_like_unstacked_ones(kind, clip, params, gradients):
    if kind["kind"] != "adamw":  # every kind of parameter, once instead of in every role
        params, gradients = small_case(0)
    config = OptimizerConfig(**kind, **EVERYTHING, **clip)
    found, _ = run(config, params, gradients)
    expected, _ = run(config, unstacked(params), [unstacked(g) for g in gradients])
    # sums over another layout round differently, and Muon's iteration amplifies that
    tolerance = 2e-5 if kind["kind"] == "muon" else 2e-6
    assert_close([unstacked(u) for u in found], expected, tolerance)


KEPT = [
    *(OptimizerConfig(kind=kind) for kind in NUMBERS),
    *(OptimizerConfig(kind=kind, moment_dtype="bfloat16") for kind in NUMBERS),
    OptimizerConfig(kind="sgd", momentum=0.0),
    OptimizerConfig(kind="adafactor", adafactor_min_dim=8),
    OptimizerConfig(kind="adafactor", adafactor_min_dim=2, adafactor_relative=False),
]
MODELS = [MODEL, nn.ModelConfig(vocab_size=40, qk_norm=True, param_dtype="bfloat16")]


@pytest.mark.parametrize("model", MODELS, ids=["full", "plain"])
@pytest.mark.parametrize("config", KEPT, ids=lambda c: f"{c.kind}-{c.moment_dtype}")
def test_the_state_is_as_large_as_the_formula_says(config, model):
    params = jax.eval_shape(lambda: nn.init(model, jax.random.key(0)))
    state = jax.tree.leaves(jax.eval_shape(chain_of(config).init, params))
    found = sum(leaf.size * leaf.dtype.itemsize for leaf in state)
    which = optimizers.present(config)
    assert found == optimizers.state_bytes(config, nn.tensors(model), which)
    moments = {str(leaf.dtype) for leaf in state} - {"int32"}
    allowed = {"float32", config.moment_dtype}
    assert moments <= allowed and (config.moment_dtype in moments or config.kind in NO_MOMENT)


NO_MOMENT = ("adafactor", "sgd")


@pytest.mark.parametrize("kind", NUMBERS)
def test_the_state_depends_on_no_number(kind):
    shapes = jax.tree.map(jnp.zeros_like, draw(0))
    states = [
        chain_of(OptimizerConfig(kind=kind, **numbers)).init(shapes)
        for numbers in (dict(beta1=0.5, momentum=0.5), dict(beta1=0.7, momentum=0.7))
    ]
    jax.tree.map(np.testing.assert_array_equal, *states)


def test_every_parameter_of_a_model_has_one_role_and_muon_takes_the_projections():
    roles = {name: role_of(name) for name in SHAPES}
    assert set(roles.values()) == set(optimizers.ROLES)
    assert roles["blocks/attention/query_norm/scale"] == "norm"
    matrices = {name for name in SHAPES if is_matrix(name)}
    assert len(matrices) == 7 and all(len(SHAPES[name]) == 3 for name in matrices)
    assert not matrices & {"embed/embedding", "readout", "blocks/attention/query/bias"}


def test_the_table_of_tensors_is_the_model():
    for model in (*MODELS, nn.ModelConfig(vocab_size=9, norm_position="post", norm="layer")):
        params = jax.eval_shape(lambda m=model: nn.init(m, jax.random.key(0)))
        assert {name: leaf.shape for name, leaf in named(params).items()} == nn.tensors(model)
        size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))
        assert size == nn.parameter_bytes(model)
