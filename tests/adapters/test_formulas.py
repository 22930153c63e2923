"""Adapters against the numbers of their papers and of their authors' code."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxhpo import adapters
from jaxhpo.adapters import allocation, changes
from jaxhpo.adapters.binding import orthogonality
from jaxhpo.adapters.config import AdapterConfig
from jaxhpo.nn.config import ModelConfig


def numbers(config, steps=3000):
    return jax.tree.map(jnp.asarray, adapters.lower(config, steps=steps))


@pytest.mark.parametrize(("rank", "plain", "stable"), [(4, 4, 8), (16, 1, 4), (64, 0.25, 2)])
def test_the_scale_is_alpha_over_the_rank_or_over_its_root(rank, plain, stable):
    for rslora, expected in ((False, plain), (True, stable)):
        config = AdapterConfig(kind="lora", rank=rank, max_rank=70, alpha=16.0, rslora=rslora)
        found = np.asarray(changes.gain(config, numbers(config), None))
        np.testing.assert_allclose(found[:rank], expected, rtol=1e-6)
        assert not found[rank:].any()


def test_lora_a_is_uniform_within_one_over_the_root_of_its_inputs():
    model = ModelConfig(num_layers=3, d_model=768, num_heads=12, vocab_size=7)
    config = AdapterConfig(kind="lora", rank=8)
    params = adapters.init(config, model, jax.random.key(0), numbers(config))
    found = np.asarray(params["blocks"]["attention"]["query"]["lora_a"])
    assert found.shape == (3, 768, 8)
    assert 0.99 * 0.0360843918 < np.abs(found).max() <= 0.0360843919
    assert found.std() == pytest.approx(0.0208333333, rel=0.02)  # of 18,432 draws
    assert not np.asarray(params["blocks"]["attention"]["query"]["lora_b"]).any()


def test_the_adapter_of_llama_2_7b_has_the_published_number_of_parameters():
    model = ModelConfig(num_layers=32, d_model=4096, num_heads=32, vocab_size=32000, d_mlp=11008)
    shapes = adapters.tensors(AdapterConfig(kind="lora", rank=8), model)
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 4_194_304


def test_the_budget_falls_by_a_cube():
    config = AdapterConfig(kind="adalora", tinit=500, tfinal=1500)
    triplets = {path: {"lora_e": jnp.zeros((4, 12))} for path in ("attention/query", "mlp/up")}
    budget = lambda made: int(allocation.budget_at(numbers(config), triplets, jnp.int32(made))[0])
    times = (500, 501, 600, 750, 1000, 1250, 1501)
    assert [budget(made) for made in times] == [96, 95, 87, 77, 68, 64, 64]


def test_the_budget_is_that_of_double_precision_all_along():
    config = AdapterConfig(kind="adalora", tinit=100, tfinal=900)
    triplets = {"attention/query": {"lora_e": jnp.zeros((24, 12))}}
    made = jnp.arange(1, 3001)
    found = jax.vmap(lambda t: allocation.budget_at(numbers(config), triplets, t)[0])(made)
    left = 1 - (np.arange(1, 3001) - 100) / 2000
    expected = ((288 - 192) * left**3 + 192).astype(int)
    expected[:100], expected[2100:] = 288, 192
    np.testing.assert_array_equal(found, expected)


def test_sensitivity_and_its_uncertainty_are_smoothed_without_correction():
    config = AdapterConfig(kind="adalora")
    one = lambda value: {"attention/query": {"lora_e": jnp.full((1, 1), value)}}
    state = SimpleNamespace(sensitivity=one(0.0), uncertainty=one(0.0))
    seen = []
    for weight, grad in ((0.5, 0.2), (0.4, -0.3), (0.45, 0.1)):
        pair = allocation.smoothed(numbers(config), state, one(weight), one(grad))
        state = SimpleNamespace(sensitivity=pair[0], uncertainty=pair[1])
        seen.append([float(tree["attention/query"]["lora_e"][0, 0]) for tree in pair])
    np.testing.assert_allclose(seen[0], [0.015, 0.01275], rtol=1e-6)
    np.testing.assert_allclose(seen[2], [0.0328875, 0.022408125], rtol=1e-6)
    np.testing.assert_allclose(np.prod(seen[2]), 7.369472109e-4, rtol=1e-6)


def test_a_triplet_scores_its_value_and_the_means_of_its_vectors():
    own = {
        "lora_e": jnp.array([[0.3, 0.1]]),
        "lora_a": jnp.array([[0.1, 0.2, 0.3], [0.0, 0.1, 0.2]]).T[None],  # Q, transposed
        "lora_b": jnp.array([[0.4, 0.2], [0.0, 0.6]]).T[None],  # P, transposed
    }
    ones = jax.tree.map(jnp.ones_like, own)
    found = allocation.scores({"mlp/up": own}, {"mlp/up": ones})["mlp/up"]
    np.testing.assert_allclose(found, [[0.7, 0.6]], rtol=1e-6)


def test_orthogonality_is_the_mean_of_the_norms():
    config = AdapterConfig(kind="adalora", initial_rank=2, target_rank=1)
    p = jnp.array([[1.0, 0.1], [0.0, 0.9], [0.2, 0.0]])
    q = jnp.array([[0.8, 0.1, 0.0], [0.0, 1.1, 0.3]])
    arrays = {"mlp/up": {"lora_a": q.T[None], "lora_b": p.T[None]}}
    found = orthogonality(config, numbers(config), arrays)
    assert float(found) == pytest.approx(0.3594486215, rel=1e-6)


def test_all_triplets_that_tie_at_the_threshold_go_and_a_whole_budget_takes_none():
    config = AdapterConfig(kind="adalora", initial_rank=4, target_rank=2)
    scores = {"mlp/up": jnp.array([[0.1, 0.2, 0.2, 0.3]])}
    masks = lambda budget: allocation.masks(config, numbers(config), scores, jnp.int32(budget))
    assert masks(4)["mlp/up"].tolist() == [[True] * 4]
    assert masks(3)["mlp/up"].tolist() == [[False, True, True, True]]
    assert masks(2)["mlp/up"].tolist() == [[False, False, False, True]]


@pytest.mark.parametrize(
    ("logit", "threshold", "weights"),
    [
        (0.0, 0.125, [0.82263263, 0.17736737, 0, 0]),
        (2.0, 0.2201992695, [0.96211716, 0.03788284, 0, 0]),
        (10.0, None, [1, 0, 0, 0]),
        (-10.0, None, None),
    ],
)
def test_experts_above_the_threshold_share_what_exceeds_it(logit, threshold, weights):
    gates = jax.nn.softmax(jnp.array([2.0, 1.0, 0.0, -1.0]))
    np.testing.assert_allclose(gates, [0.64391426, 0.23688282, 0.08714432, 0.0320586], rtol=1e-6)
    tau = 0.25 * jax.nn.sigmoid(jnp.float32(logit))
    if threshold is not None:
        assert float(tau) == pytest.approx(threshold, rel=1e-6)
    found, chosen = changes.shares(gates, tau)
    if weights is None:
        assert bool(chosen.all()) and float(found.sum()) == pytest.approx(1.0)
    else:
        np.testing.assert_allclose(found, weights, rtol=1e-5)


def test_a_uniform_gate_at_its_own_threshold_switches_the_adapter_off():
    found, _ = changes.shares(jnp.full(4, 0.25), jnp.float32(0.25))
    assert found.tolist() == [0.0] * 4


def test_the_balance_term_takes_what_exceeds_the_threshold():
    gates = jax.nn.softmax(jnp.array([[2.0, 1.0, 0.0, -1.0], [0.0] * 4]))
    found = changes.balance(gates, jnp.full(2, 0.125))
    assert float(found) == pytest.approx(1.8807970780, rel=1e-6)
    slope = jax.grad(lambda tau: changes.balance(gates, jnp.full(2, tau)))(0.125)
    assert float(slope) == pytest.approx(-12.0)  # -E (1 + 1 + 1/2 + 1/2): through P alone


def test_adamole_is_the_sum_of_its_experts_by_weight():
    config = AdapterConfig(kind="adamole", experts=4, rank=2, alpha=6.0)
    keys = jax.random.split(jax.random.key(0), 6)
    shapes = {"lora_a": (4, 5, 2), "lora_b": (4, 2, 3), "gate": (5, 4), "threshold": (5,)}
    arrays = {n: jax.random.normal(k, s) for k, (n, s) in zip(keys, shapes.items(), strict=False)}
    arrays["threshold_bias"] = jnp.float32(0.3)
    x = jax.random.normal(keys[5], (2, 5))
    call = changes.Call(x, None, None, None, None)
    found, noted = changes.adamole(config, numbers(config), arrays, call)
    used = 0
    for row, out in zip(np.float64(x), found, strict=True):
        exponents = np.exp(row @ np.float64(arrays["gate"]))
        p = exponents / exponents.sum()
        tau = 0.25 / (1 + np.exp(-(row @ np.float64(arrays["threshold"]) + 0.3)))
        above = np.where(p >= tau, p - tau, 0)
        used += (p >= tau).sum() / 2
        parts = [3.0 * row @ np.float64(a) @ np.float64(b)
                 for a, b in zip(arrays["lora_a"], arrays["lora_b"], strict=True)]  # fmt: skip
        np.testing.assert_allclose(out, above / above.sum() @ np.array(parts), rtol=1e-4)
    assert float(noted["experts"]) == pytest.approx(used)
