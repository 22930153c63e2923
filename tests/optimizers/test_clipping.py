"""Clipping by value, global norm and component: the published vectors and the bounds."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxhpo import optimizers
from jaxhpo.errors import UsageError
from jaxhpo.optimizers import OptimizerConfig, clip_by_role_norm, clip_by_tensor_norm
from jaxhpo.optimizers.clipping import clipping
from jaxhpo.optimizers.components import pieces
from tests.optimizers.conftest import LAYERS, assert_close, draw, unstacked

INF = float("inf")
VECTORS = {"q": jnp.array([3.0, 4.0]), "k": jnp.array([0.3, 0.4]), "b": jnp.array([0.0, 0.12])}


def apply(transform, grads):
    return transform.update(grads, transform.init(grads), grads)[0]


def clip(grads, **thresholds):
    """The gradient after all clipping of a config."""
    numbers = optimizers.lower(OptimizerConfig(**{"clip_norm": INF, **thresholds}))
    return apply(optax.chain(*clipping(jax.tree.map(jnp.asarray, numbers))), grads)


@pytest.mark.parametrize(
    ("thresholds", "q", "k", "b"),
    [
        (
            dict(clip_norm=1.0),
            [0.5968521469, 0.7958028625],
            [0.0596852147, 0.0795802863],
            [0, 0.0238740859],
        ),
        (dict(clip_tensor=1.0), [0.6, 0.8], [0.3, 0.4], [0, 0.12]),
        (
            dict(clip_tensor=0.05),
            [0.029999994, 0.039999992],
            [0.02999994, 0.03999992],
            [0, 0.0499995833],
        ),
        (dict(clip_value=0.35), [0.35, 0.35], [0.3, 0.35], [0, 0.12]),
    ],
    ids=str,
)
def test_clipping_passes_through_the_published_vectors(thresholds, q, k, b):
    found = clip(VECTORS, **thresholds)
    for name, expected in (("q", q), ("k", k), ("b", b)):
        np.testing.assert_allclose(found[name], expected, rtol=1e-6)


def test_a_fused_projection_is_split_before_its_norms_are_taken():
    fused = {"attention": {"qkv": {"kernel": jnp.concatenate([VECTORS[n] for n in "qkb"])[None]}}}
    expected = jnp.concatenate([clip(VECTORS, clip_tensor=0.05)[name] for name in "qkb"])[None]
    found = clip(fused, clip_tensor=0.05)["attention"]["qkv"]["kernel"]
    np.testing.assert_array_equal(found, expected)
    only_key = apply(clip_by_role_norm({"key": 0.05}), fused)["attention"]["qkv"]["kernel"]
    np.testing.assert_array_equal(only_key[0, 2:4], expected[0, 2:4])
    np.testing.assert_array_equal(only_key[0, [0, 1, 4, 5]], [3, 4, 0, jnp.float32(0.12)])


@pytest.mark.parametrize(
    "thresholds", [{f"clip_{kind}": 0.5} for kind in ("value", "norm", "tensor", "role")], ids=str
)
def test_zero_gradients_stay_zero_and_small_ones_as_they_are(thresholds):
    zero = jax.tree.map(np.zeros_like, draw(0))
    small = draw(1, 1e-4)
    for grads in (zero, small):
        jax.tree.map(np.testing.assert_array_equal, clip(grads, **thresholds), grads)


@settings(max_examples=20, deadline=None)
@given(threshold=st.floats(1e-3, 10.0), scale=st.floats(1e-3, 100.0), seed=st.integers(0, 999))
def test_no_tensor_of_a_layer_exceeds_its_threshold_and_directions_stay(threshold, scale, seed):
    grads = draw(seed, scale)
    found = apply(clip_by_tensor_norm(jnp.float32(threshold)), grads)
    for before, after in zip(
        jax.tree.leaves(unstacked(grads)), jax.tree.leaves(unstacked(found)), strict=True
    ):
        norm, size = np.linalg.norm(np.ravel(after)), np.linalg.norm(np.ravel(before))
        assert norm <= threshold * (1 + 1e-6)
        np.testing.assert_allclose(norm, min(size, threshold * size / (size + 1e-6)), rtol=1e-5)
        np.testing.assert_allclose(after / norm, before / size, rtol=1e-4, atol=1e-6)


def test_a_role_is_clipped_by_the_joint_norm_of_its_tensors_in_one_layer():
    grads = draw(3)
    found = clip(grads, clip_role_mlp_in=0.5)
    gates = [grads["blocks"]["mlp"][name] for name in ("up", "gate")]
    for layer in range(LAYERS):
        mine = [np.ravel(x[layer]) for part in gates for x in jax.tree.leaves(part)]
        factor = 0.5 / (np.linalg.norm(np.concatenate(mine)) + 1e-6)
        for name in ("up", "gate"):
            for leaf in ("kernel", "bias"):
                np.testing.assert_allclose(
                    found["blocks"]["mlp"][name][leaf][layer],
                    factor * grads["blocks"]["mlp"][name][leaf][layer],
                    rtol=1e-5,
                )
    found["blocks"]["mlp"], rest = grads["blocks"]["mlp"], found
    jax.tree.map(np.testing.assert_array_equal, rest, grads)


def test_a_roles_own_threshold_takes_the_place_of_the_shared_one():
    grads = draw(4)
    both = clip(grads, clip_role=0.5, clip_role_query=0.125)
    shared = clip(grads, clip_role=0.5)
    own = clip(grads, clip_role_query=0.125)
    query = lambda tree: tree["blocks"]["attention"]["query"]
    assert_close(query(both), query(own))
    both["blocks"]["attention"]["query"] = query(shared)
    assert_close(both, shared)


def test_one_broken_tensor_stays_alone_under_component_wise_clipping():
    grads = draw(5)
    grads["blocks"]["mlp"]["up"]["kernel"][1, 0, 0] = np.inf
    found = clip(grads, clip_tensor=0.5)
    broken = [bool(np.isnan(x).any()) for x in jax.tree.leaves(unstacked(found))]
    assert sum(broken) == 1


def test_the_share_clipped_is_that_of_the_layers_whose_gradient_was_scaled():
    grads = jax.tree.map(lambda x: x * 1e-3, draw(6))
    grads["blocks"]["attention"]["query"]["kernel"][0] *= 1e6
    config = OptimizerConfig(clip_norm=0.1, clip_role=1.0, clip_role_value=INF, clip_value=1.0)
    numbers = jax.tree.map(jnp.asarray, optimizers.lower(config))
    shares = {name: float(share) for name, share in optimizers.clipped(numbers, grads).items()}
    assert shares.pop("clipped/query") == pytest.approx(1 / LAYERS)
    assert shares.pop("clipped/value") == shares.pop("clipped/global") == 1.0
    roles = {f"clipped/{role}" for role in optimizers.ROLES} - {"clipped/query", "clipped/value"}
    assert set(shares) == roles and not any(shares.values())


def test_clipping_that_is_off_is_compiled_out():
    numbers = optimizers.lower(OptimizerConfig(clip_norm=INF))
    assert clipping(numbers) == [] and optimizers.clipped(numbers, VECTORS) == {}
    searched = optimizers.present(OptimizerConfig(), ["clip_role_query"])
    assert {n for n in searched if n.startswith("clip")} == {"clip_norm", "clip_role_query"}
    everywhere = optimizers.present(OptimizerConfig(clip_role_key=INF), ["clip_role"])
    clips = {n for n in everywhere if n.startswith("clip_role")}
    assert len(clips) == len(optimizers.ROLES) - 1 and "clip_role_key" not in clips


def test_two_rules_for_one_tensor_are_refused():
    with pytest.raises(UsageError, match="clip_role are two rules for one tensor"):
        optimizers.lower(OptimizerConfig(clip_tensor=1.0, clip_role=1.0))
    with pytest.raises(UsageError, match="two rules for one tensor"):
        optimizers.present(OptimizerConfig(clip_tensor=1.0), ["clip_role_query"])


def test_a_fused_projection_of_unequal_parts_is_refused():
    with pytest.raises(ValueError, match="equal width"):
        pieces({"attention": {"qkv": {"kernel": jnp.zeros((2, 5))}}})
