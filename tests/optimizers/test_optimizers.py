"""The optimizer room equals optax's own AdamW and the published vectors, with traced numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxhpo import optimizers, schedules
from jaxhpo.errors import UsageError
from jaxhpo.optimizers import OptimizerConfig
from jaxhpo.optimizers.masks import decay_shares, named, renamed
from jaxhpo.schedules import ScheduleConfig

CONSTANT = ScheduleConfig(kind="constant", peak_lr=1e-2, warmup_steps=0)


def trajectory(chain, params, gradients, **extra):
    state, path = chain.init(params), []
    for step, grads in enumerate(gradients):
        given = {name: step for name in extra}
        updates, state = chain.update(grads, state, params, **given)
        params = optax.apply_updates(params, updates)
        path.append(params)
    return path


def decayed(tree):
    """Where decay applies by default, as a mask for optax."""
    shares = decay_shares(OptimizerConfig(), named(tree))
    return renamed({name: share > 0 for name, share in shares.items()}, tree)


def ours(config, schedule=CONSTANT, steps=100):
    numbers = jax.tree.map(jnp.asarray, optimizers.lower(config))
    return optimizers.build(config, numbers, schedules.lower(schedule, steps))


def random_gradients(count, scale=1.0):
    rng = np.random.default_rng(0)
    tree = {"kernel": (4, 3), "norm": (3,), "bias": (3,)}
    return [
        {k: jnp.asarray(scale * rng.normal(size=v), jnp.float32) for k, v in tree.items()}
        for _ in range(count)
    ]


def test_adamw_passes_through_the_published_vectors():
    config = OptimizerConfig(beta2=0.999, weight_decay=0.1, clip_norm=float("inf"))
    gradients = [{"w": k * jnp.array([0.1, 0.2, -0.3])} for k in (1, 2, 3)]
    path = trajectory(ours(config), {"w": jnp.array([1.0, -2.0, 0.5])}, gradients, step=0)
    np.testing.assert_allclose(path[0]["w"], [0.989, -2.008, 0.5095], rtol=1e-6)
    np.testing.assert_allclose(path[2]["w"], [0.9678008104, -2.0232081877, 0.5277036895], rtol=1e-6)


@pytest.mark.parametrize("beta2", [0.95, 0.999, 0.99999])
@pytest.mark.parametrize("clip", [0.5, float("inf")])
def test_adamw_equals_optax(beta2, clip):
    gradients = random_gradients(20)
    params = jax.tree.map(jnp.ones_like, gradients[0])
    config = OptimizerConfig(beta2=beta2, clip_norm=clip, weight_decay=0.3)
    reference = optax.chain(
        optax.clip_by_global_norm(clip) if np.isfinite(clip) else optax.identity(),
        optax.adamw(1e-2, b1=0.9, b2=beta2, weight_decay=0.3, mask=decayed),
    )
    found = trajectory(ours(config), params, gradients, step=0)[-1]
    with jax.enable_x64(True):  # optax's float32 bias correction loses digits near beta = 1
        wide = lambda tree: jax.tree.map(lambda x: jnp.asarray(np.asarray(x), jnp.float64), tree)
        expected = trajectory(reference, wide(params), wide(gradients))[-1]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6), found, expected)


def test_traced_numbers_equal_baked_ones_and_the_state_holds_none_of_them():
    config = OptimizerConfig()
    grads = random_gradients(1)[0]
    numbers = jax.tree.map(jnp.asarray, optimizers.lower(config))
    schedule = schedules.lower(CONSTANT, 100)

    def update(numbers, schedule):
        chain = optimizers.build(config, numbers, schedule)
        return chain.update(grads, chain.init(grads), grads, step=3)

    traced, state = jax.jit(update)(numbers, schedule)
    baked, _ = jax.jit(lambda: update(numbers, schedule))()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), traced, baked)
    moments = optax.tree.get_all_with_path(state, "nu")
    leaves = jax.tree.leaves(state)
    assert len(moments) == 1 and len(leaves) == 2 * len(grads) + 1, "count, mu, nu and no more"


def test_decay_leaves_norms_and_biases_alone():
    tree = {"blocks": {"attention_norm": {"scale": 0}, "up": {"kernel": 0, "bias": 0}}, "embed": 0}
    expected = {
        "blocks": {"attention_norm": {"scale": False}, "up": {"kernel": True, "bias": False}},
        "embed": True,
    }
    assert decayed(tree) == expected


def test_first_moment_can_be_kept_in_bfloat16():
    config = OptimizerConfig(moment_dtype="bfloat16")
    state = ours(config).init(random_gradients(1)[0])
    kinds = {str(leaf.dtype) for leaf in jax.tree.leaves(state)}
    assert kinds == {"int32", "bfloat16", "float32"}


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"beta1": 1.0}, "optimizer.beta1=1.0"),
        ({"weight_decay": -0.1}, "optimizer.weight_decay=-0.1"),
        ({"clip_norm": 0.0}, "optimizer.clip_norm=0.0"),
        ({"eps": float("inf")}, "optimizer.eps=inf"),
        ({"kind": "adamx"}, "optimizer.kind=adamx; allowed: adamw, adam, sgd, lion, muon"),
        ({"decay": "weights"}, "optimizer.decay=weights; allowed: lr, schedule, constant, l2"),
        ({"momentum": 1.0}, "optimizer.momentum=1.0; allowed: 0 <= momentum < 1"),
        ({"clip_value": -1.0}, "optimizer.clip_value=-1.0; allowed: above 0"),
        ({"clip_tensor": 0.0}, "optimizer.clip_tensor=0.0; allowed: above 0"),
        ({"clip_role_query": -0.5}, "optimizer.clip_role_query=-0.5; allowed: above 0"),
        ({"weight_decay_end": -0.1}, "optimizer.weight_decay_end=-0.1"),
        ({"muon_rms": -0.2}, "optimizer.muon_rms=-0.2"),
        ({"adafactor_clip": 0.0}, "optimizer.adafactor_clip=0.0"),
        ({"adafactor_min_dim": 0}, "optimizer.adafactor_min_dim=0"),
        ({"kind": "adamw", "decay": "l2"}, "makes adamw Adam; use optimizer.kind adam"),
        ({"kind": "adam", "decay": "lr"}, "makes adam AdamW; use kind adamw"),
    ],
)
def test_numbers_outside_their_range_are_refused_by_name(values, named):
    with pytest.raises(UsageError, match=named):
        OptimizerConfig(**values)


@pytest.mark.parametrize(
    ("config", "searched"),
    [
        (OptimizerConfig(kind="sgd"), "beta2"),
        (OptimizerConfig(), "momentum"),
        (OptimizerConfig(), "weight_decay_end"),
        (OptimizerConfig(kind="lion"), "adafactor_clip"),
    ],
)
def test_a_search_over_what_has_no_effect_is_refused(config, searched):
    with pytest.raises(UsageError, match=f"optimizer.{searched} has no effect with"):
        optimizers.present(config, ["weight_decay", searched])


def test_what_is_searched_exists_and_what_is_off_does_not():
    present = lambda *searched, **values: optimizers.present(OptimizerConfig(**values), searched)
    assert "momentum" not in present(kind="sgd", momentum=0.0)
    assert "momentum" in present("momentum", kind="sgd", momentum=0.0)
    assert "weight_decay" not in present(weight_decay=0.0)
    assert "weight_decay" in present("weight_decay", weight_decay=0.0)
    assert "weight_decay" not in present(kind="adam")
    assert "clip_tensor" in present("clip_tensor") and "clip_tensor" not in present()
    assert "muon_rms" not in present(kind="muon", muon_rms=None)


def test_a_decay_that_needs_the_schedule_says_so():
    for values, word in (
        ({"decay": "schedule"}, "peak_lr"),
        ({"decay_schedule": "cosine"}, "steps"),
    ):
        with pytest.raises(ValueError, match=word):
            optimizers.lower(OptimizerConfig(weight_decay=0.1, **values))
