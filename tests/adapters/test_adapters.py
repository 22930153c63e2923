"""What holds for every kind of adapter on a tiny model."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxhpo import adapters, nn
from jaxhpo.adapters.arrays import each_target
from jaxhpo.adapters.changes import CHANGES, Call
from jaxhpo.adapters.config import AdapterConfig
from jaxhpo.errors import UsageError
from jaxhpo.nn.config import ModelConfig

MODEL = ModelConfig(num_layers=2, d_model=16, num_heads=2, context=8, vocab_size=32, bias=True)
KINDS = ("lora", "dora", "adalora", "adamole")
TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, 32, (3, 8)), jnp.int32)
kinds = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def base():
    return nn.init(MODEL, jax.random.key(1))


def numbers(config):
    """With a switch that is on, as where a search may turn it."""
    return adapters.lower(config, adapters.present(config) | {"on_value"}, steps=10)


@functools.partial(jax.jit, static_argnums=(0, 3))
def logits(config, base, params, dtype="float32"):
    stored = adapters.store(base, dtype)
    whole, _ = adapters.bind(config, MODEL, stored, params, numbers(config))
    return nn.apply(MODEL, whole, TOKENS)


@functools.partial(jax.jit, static_argnums=0)
def newborn(config, base):
    return adapters.init(config, MODEL, jax.random.key(2), numbers(config), adapters.store(base))


def settled(config, base):
    """Arrays as after some training, and the same whatever the width."""
    params = newborn(config, base)
    rank = config.first_rank
    for _, own in each_target(params):
        for name in ("lora_b", "lora_e"):
            if name in own:
                axis = -1 if name == "lora_e" else -2
                shape = list(own[name].shape)
                shape[axis] = rank
                drawn = 0.3 * jax.random.normal(jax.random.key(5), shape)
                where = [(0, 0)] * len(shape)
                where[axis] = (0, own[name].shape[axis] - rank)
                own[name] = jnp.pad(drawn, where)
    return params


@kinds
def test_a_new_adapter_changes_nothing(kind, base):
    config = AdapterConfig(kind=kind, targets=(".",))
    params = newborn(config, base)
    found, plain = logits(config, base, params), logits(AdapterConfig(), base, {})
    if kind == "dora":  # a norm over the same norm, each summed in its own order
        np.testing.assert_allclose(found, plain, atol=1e-5)
    else:
        np.testing.assert_array_equal(found, plain)


@kinds
def test_a_rank_in_wider_arrays_is_that_rank(kind, base):
    exact = AdapterConfig(kind=kind, rank=3, initial_rank=3, target_rank=2)
    wide = AdapterConfig(kind=kind, rank=3, initial_rank=3, target_rank=2, max_rank=7)
    a, b = (settled(config, base) for config in (exact, wide))
    for (_, small), (_, large) in zip(each_target(a), each_target(b), strict=True):
        np.testing.assert_array_equal(small["lora_a"], large["lora_a"][..., :3])
        assert not np.asarray(large["lora_a"][..., 3:]).any()
    np.testing.assert_allclose(logits(exact, base, a), logits(wide, base, b), atol=1e-5)


@pytest.mark.parametrize("kind", ["lora", "adalora", "adamole"])
def test_directions_beyond_the_rank_have_no_gradient(kind, base):
    config = AdapterConfig(kind=kind, rank=3, initial_rank=3, target_rank=2, max_rank=5)
    params = settled(config, base)
    full = jax.tree.map(lambda x: jnp.where(x == 0, 0.1, x), params)  # the mask alone must hold
    slope = jax.jit(jax.grad(lambda p: logits(config, base, p).std()))(full)
    for _, own in each_target(slope):
        assert np.asarray(own["lora_a"][..., :3]).any() and np.asarray(own["lora_b"]).any()
        assert not np.asarray(own["lora_a"][..., 3:]).any()
        assert not np.asarray(own["lora_b"][..., 3:, :]).any()


@kinds
def test_a_switched_off_target_is_as_if_it_had_none(kind, base):
    both = AdapterConfig(kind=kind, rank=3, on_query=0)
    one = AdapterConfig(kind=kind, rank=3, targets=("attention/value",))
    params = settled(both, base)
    value = {"blocks": {"attention": {"value": params["blocks"]["attention"]["value"]}}}
    found = logits(both, base, params)
    np.testing.assert_allclose(found, logits(one, base, value), atol=1e-6)
    assert np.abs(found - nn.apply(MODEL, base, TOKENS)).max() > 1e-3


@pytest.mark.parametrize("kind", ["lora", "dora", "adalora"])
def test_merged_weights_give_the_adapter_s_logits(kind, base):
    config = AdapterConfig(kind=kind, targets=(".",), on_key=0, alpha=3.0)
    params = settled(config, base)
    merged = adapters.merge(config, base, params, numbers(config))
    np.testing.assert_allclose(
        nn.apply(MODEL, merged, TOKENS), logits(config, base, params), atol=2e-4, rtol=1e-4
    )
    np.testing.assert_array_equal(
        merged["blocks"]["attention"]["key"]["kernel"], base["blocks"]["attention"]["key"]["kernel"]
    )


def test_adamole_is_not_merged(base):
    config = AdapterConfig(kind="adamole")
    with pytest.raises(UsageError, match=r"adapter.kind=adamole can't be merged"):
        adapters.merge(config, base, {}, numbers(config))


@pytest.mark.parametrize(("dtype", "bound"), [("bfloat16", 2**-8), ("int8", 0.5 / 127)])
def test_a_stored_base_is_off_by_its_rounding_and_its_size_is_as_planned(dtype, bound, base):
    stored = adapters.store(base, dtype)
    taken = sum(x.nbytes for x in jax.tree.leaves(stored))
    assert taken == adapters.stored_bytes(MODEL, dtype)
    kernel = np.asarray(base["blocks"]["mlp"]["up"]["kernel"])
    error = np.abs(adapters.restore(stored)["blocks"]["mlp"]["up"]["kernel"] - kernel)
    scale = np.abs(kernel) if dtype == "bfloat16" else np.abs(kernel).max(-2, keepdims=True)
    assert (error <= 1.001 * bound * scale).all() and error.any()
    config = AdapterConfig(kind="lora")
    found = logits(config, base, settled(config, base), dtype)
    restored = logits(config, adapters.restore(stored), settled(config, base))
    np.testing.assert_allclose(found, restored, atol=1e-5)


@pytest.mark.parametrize("kind", ["lora", "adalora"])
def test_dropout_falls_on_the_adapter_s_inputs_and_keeps_their_mean(kind, base):
    config = AdapterConfig(kind=kind, rank=2, initial_rank=2, target_rank=2, dropout=0.3)
    own = next(each_target(settled(config, base)))[1]
    arrays = {name: value[0] for name, value in own.items()}
    x = jnp.ones((1, 16))
    change = lambda key: CHANGES[kind](config, numbers(config), arrays, Call(x, None, x, None, key))
    draws = jax.vmap(lambda key: change(key)[0])(jax.random.split(jax.random.key(0), 4000))
    still = change(None)[0]
    error = draws.std(0) / 4000**0.5
    assert draws.std() > 0
    assert (jnp.abs(draws.mean(0) - still) < 5 * error).all()


def test_two_targets_with_one_input_drop_entries_of_their_own(base):
    config = AdapterConfig(kind="lora", dropout=0.5)
    params = settled(config, base)
    own = dict(each_target(params))
    own["attention/value"].update(own["attention/query"])
    linear = nnx.Linear(16, 16, use_bias=False, rngs=nnx.Rngs(0))

    @jax.jit
    def changed(key):
        stored = adapters.store(base)
        _, bound = adapters.bind(config, MODEL, stored, params, numbers(config), key)
        block = SimpleNamespace(attention=SimpleNamespace(query=linear, value=linear))
        bound.attach(block, jax.tree.map(lambda x: x[0], bound.rows))
        x = jnp.ones((4, 16))
        return block.attention.query(x), block.attention.value(x)

    query, value = changed(None)
    np.testing.assert_array_equal(query, value)
    query, value = changed(jax.random.key(7))
    assert not np.array_equal(query, value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "ia3"}, "adapter.kind=ia3; allowed: none, lora"),
        ({"rank": 9, "max_rank": 8}, "adapter.rank=9; allowed: 1 to adapter.max_rank=8"),
        ({"targets": ("attention/qkv",)}, "adapter.targets='attention/qkv'; allowed: a pattern"),
        ({"dropout": 1.0}, "adapter.dropout=1.0; allowed: 0 <= p < 1"),
        ({"on_query": 2}, "adapter.on_query=2; allowed: 0 or 1"),
        ({"kind": "adalora", "target_rank": 13}, "adapter.target_rank=13; allowed: 1 to"),
        ({"threshold_max": 0.0}, "adapter.threshold_max=0.0; allowed: above 0"),
    ],
)
def test_a_wrong_value_is_refused_by_name(options, message):
    with pytest.raises(UsageError, match=message):
        AdapterConfig(**options)


def test_what_only_the_model_or_the_run_knows_is_refused_too():
    with pytest.raises(UsageError, match="'mlp/gate' matches no projection; there are"):
        adapters.targets_of(AdapterConfig(kind="lora", targets=("mlp/gate",)), MODEL)
    with pytest.raises(UsageError, match=r"adapter.rank=16; allowed: 1 to 8; give"):
        adapters.lower(AdapterConfig(kind="lora", rank=16), steps=1, width=8)
    with pytest.raises(UsageError, match=r"leave none of the 10 steps"):
        adapters.lower(AdapterConfig(kind="adalora", tinit=5, tfinal=5), steps=10)
    with pytest.raises(UsageError, match=r"adapter.beta1 has no effect with adapter.kind=lora"):
        adapters.present(AdapterConfig(kind="lora"), ["beta1"])
