"""The optimizer room against torch's optimizers and clipping, over random settings."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxhpo.optimizers import OptimizerConfig
from tests.optimizers.conftest import assert_close, run

torch = pytest.importorskip("torch")

INF, RATE = float("inf"), 1e-2  # the rate of conftest's constant schedule
SHAPES = {"kernel": (5, 3), "other": (4,)}
examples = settings(max_examples=30, deadline=None)
seeds = st.integers(0, 9999)


def case(seed, scale=0.1):
    rng = np.random.default_rng(seed)
    draw = lambda size: {k: (size * rng.normal(size=v)).astype("f4") for k, v in SHAPES.items()}
    return draw(1.0), [draw(scale) for _ in range(5)]


def torch_updates(make, params, gradients, clip=None):
    """Each step's change of the parameters, in float64: what float32 is measured against."""
    weights = [torch.nn.Parameter(torch.tensor(params[k]).double()) for k in SHAPES]
    optimizer, path = make(weights), []
    for grads in gradients:
        for weight, name in zip(weights, SHAPES, strict=True):
            weight.grad = torch.tensor(grads[name]).double()
        if clip is not None:
            clip(weights)
        before = [weight.detach().clone() for weight in weights]
        optimizer.step()
        moved = [(w.detach() - b).numpy() for w, b in zip(weights, before, strict=True)]
        path.append(dict(zip(SHAPES, moved, strict=True)))
    return path


def ours(config, params, gradients):
    return run(config, params, gradients)[0]


@examples
@given(
    beta1=st.floats(0.0, 0.99),
    beta2=st.floats(0.5, 0.9999),
    eps=st.floats(1e-10, 1e-3),
    decay=st.floats(0.01, 2.0),
    seed=seeds,
)
def test_adamw_moves_as_torchs(beta1, beta2, eps, decay, seed):
    config = OptimizerConfig(beta1=beta1, beta2=beta2, eps=eps, weight_decay=decay, clip_norm=INF)
    make = lambda weights: torch.optim.AdamW(
        weights, RATE, betas=(beta1, beta2), eps=eps, weight_decay=decay
    )
    assert_close(ours(config, *case(seed)), torch_updates(make, *case(seed)))


@examples
@given(
    beta1=st.floats(0.0, 0.99), beta2=st.floats(0.5, 0.9999), decay=st.floats(0.01, 1.0), seed=seeds
)
def test_adam_with_l2_moves_as_torchs(beta1, beta2, decay, seed):
    config = OptimizerConfig(
        kind="adam", beta1=beta1, beta2=beta2, eps=1e-3, weight_decay=decay, clip_norm=INF
    )
    make = lambda weights: torch.optim.Adam(
        weights, RATE, betas=(beta1, beta2), eps=1e-3, weight_decay=decay
    )
    # gradient and decay may nearly cancel, and Adam scales what rounding left of them up again:
    # eps is large, and of the worst draw a hundred-thousandth is lost
    assert_close(ours(config, *case(seed)), torch_updates(make, *case(seed)), 1e-5)


@examples
@given(
    momentum=st.floats(0.01, 0.999), nesterov=st.booleans(), decay=st.floats(0.01, 1.0), seed=seeds
)
def test_sgd_moves_as_torchs(momentum, nesterov, decay, seed):
    config = OptimizerConfig(
        kind="sgd", momentum=momentum, nesterov=nesterov, weight_decay=decay, clip_norm=INF
    )
    make = lambda weights: torch.optim.SGD(
        weights, RATE, momentum=momentum, nesterov=nesterov, weight_decay=decay
    )
    assert_close(ours(config, *case(seed)), torch_updates(make, *case(seed)))


@examples
@given(threshold=st.floats(0.01, 0.3), decay=st.floats(0.01, 1.0), seed=seeds)
def test_l2_is_added_to_the_clipped_gradient_as_in_torch(threshold, decay, seed):
    config = OptimizerConfig(kind="sgd", weight_decay=decay, clip_value=threshold, clip_norm=INF)
    make = lambda weights: torch.optim.SGD(weights, RATE, momentum=0.9, weight_decay=decay)
    clip = lambda weights: torch.nn.utils.clip_grad_value_(weights, threshold)
    assert_close(ours(config, *case(seed)), torch_updates(make, *case(seed), clip))


PLAIN = dict(kind="sgd", momentum=0.0, weight_decay=0.0)


def sgd(weights):
    return torch.optim.SGD(weights, RATE)


@examples
@given(threshold=st.floats(1e-3, 3.0), seed=seeds)
def test_clipping_by_value_is_torchs(threshold, seed):
    config = OptimizerConfig(**PLAIN, clip_value=threshold, clip_norm=INF)
    clip = lambda weights: torch.nn.utils.clip_grad_value_(weights, threshold)
    assert_close(ours(config, *case(seed)), torch_updates(sgd, *case(seed), clip))


@examples
@given(threshold=st.floats(1e-3, 3.0), seed=seeds)
def test_clipping_each_tensor_is_torchs_clipping_of_each_parameter_alone(threshold, seed):
    config = OptimizerConfig(**PLAIN, clip_tensor=threshold, clip_norm=INF)
    clip = lambda ws: [torch.nn.utils.clip_grad_norm_([w], threshold) for w in ws]
    assert_close(ours(config, *case(seed)), torch_updates(sgd, *case(seed), clip))


@examples
@given(threshold=st.floats(1e-3, 3.0), seed=seeds)
def test_clipping_by_global_norm_is_torchs_but_for_the_millionth_it_adds(threshold, seed):
    config = OptimizerConfig(**PLAIN, clip_norm=threshold)
    params, gradients = case(seed)
    found = ours(config, params, gradients)
    clip = lambda weights: torch.nn.utils.clip_grad_norm_(weights, threshold)
    expected = torch_updates(sgd, params, gradients, clip)
    for mine, theirs, grads in zip(found, expected, gradients, strict=True):
        norm = np.sqrt(sum(np.sum(np.square(g, dtype="f8")) for g in grads.values()))
        factors = (min(1.0, threshold / (norm + eps)) for eps in (0.0, 1e-6))
        scale = next(factors) / next(factors)
        assert_close(mine, {k: v * scale for k, v in theirs.items()})


def test_a_norm_just_at_the_threshold_is_left_alone_here_and_shrunk_in_torch():
    grads = {"w": jnp.array([0.6, 0.8])}
    found = run(OptimizerConfig(**PLAIN, clip_norm=1.0), {"w": jnp.zeros(2)}, [grads])[0][0]["w"]
    weight = torch.nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([0.6, 0.8])
    torch.nn.utils.clip_grad_norm_([weight], 1.0)
    assert np.linalg.norm(found) / RATE == pytest.approx(1.0, abs=1e-7)
    assert float(weight.grad.norm()) == pytest.approx(1 / (1 + 1e-6), abs=2e-7)
