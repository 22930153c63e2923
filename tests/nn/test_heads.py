"""Laws of the head: what it reads, and what it never looks at."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxhpo import nn
from jaxhpo.nn.config import HeadConfig, ModelConfig
from jaxhpo.nn.heads import head_tensors, init_head, pool, pooling_of, read, square_losses, weighed

MODEL = ModelConfig(num_layers=1, d_model=8, num_heads=2, context=6, vocab_size=11)
STATES = jax.random.normal(jax.random.key(0), (3, 6, 8))
LENGTHS = jnp.array([2, 6, 1])


def test_last_is_the_last_token_that_is_no_padding() -> None:
    for row, length in enumerate(LENGTHS):
        found = pool(STATES, LENGTHS, "last")[row]
        np.testing.assert_array_equal(found, STATES[row, length - 1])


def test_mean_is_over_the_real_tokens_alone() -> None:
    for row, length in enumerate(LENGTHS):
        found = pool(STATES, LENGTHS, "mean")[row]
        np.testing.assert_allclose(found, STATES[row, :length].mean(0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pooling", ["last", "mean", "first"])
@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_padding_changes_no_output(pooling: str, attention: str) -> None:
    from dataclasses import replace

    from jaxhpo.optimizers.config import OptimizerConfig
    from jaxhpo.population.headed import HeadedModel
    from jaxhpo.population.hyperparams import Hyperparams

    task = HeadedModel(
        replace(MODEL, attention=attention), OptimizerConfig(), head=HeadConfig(pooling=pooling)
    )
    numbers = Hyperparams(None, None, nn.Dropout(), nn.LossTerms())
    params = task.init(jax.random.key(1), numbers)
    batch = {"tokens": jnp.array([[3, 4, 5, 0, 0, 0]]), "lengths": jnp.array([3])}
    other = {**batch, "tokens": jnp.array([[3, 4, 5, 9, 8, 7]])}
    found = task.outputs_of(params, batch, numbers, None)
    np.testing.assert_allclose(found, task.outputs_of(params, other, numbers, None), atol=1e-6)
    longer = {"tokens": batch["tokens"], "lengths": jnp.array([4])}
    if pooling != "first" or attention == "bidirectional":
        assert not np.allclose(found, task.outputs_of(params, longer, numbers, None))


def test_what_is_pooled_by_default_has_seen_the_whole_text() -> None:
    both = ModelConfig(attention="bidirectional")
    assert pooling_of(ModelConfig(), HeadConfig()) == "last"
    assert pooling_of(both, HeadConfig()) == "mean"
    assert pooling_of(both, HeadConfig(pooling="last")) == "last"


def test_the_head_is_a_linear_layer_and_dropout_needs_a_key() -> None:
    params = init_head(MODEL, 3, jax.random.key(2))
    assert {f"head/{n}": x.shape for n, x in params.items()} == head_tensors(MODEL, 3)
    head, rate = HeadConfig(pooling="last"), jnp.float32(0.5)
    found = read(MODEL, head, params, STATES, LENGTHS, rate=rate)
    expected = pool(STATES, LENGTHS, "last") @ params["kernel"] + params["bias"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    dropped = read(MODEL, head, params, STATES, LENGTHS, rate=rate, key=jax.random.key(0))
    assert not np.allclose(found, dropped)


def test_squared_errors_are_those_of_the_one_output() -> None:
    losses = square_losses(jnp.array([[1.0], [3.0]]), jnp.array([2.0, 0.0]))
    assert losses.tolist() == [1.0, 9.0]


def test_a_weight_of_zero_silences_a_nan() -> None:
    losses, weight = jnp.array([2.0, jnp.nan]), jnp.array([2.0, 0.0])
    assert weighed(losses, weight) == 2.0
    assert np.isnan(weighed(losses, None))
