"""Predicted memory against what the compiled programs report."""

from dataclasses import replace

import jax
import numpy as np
import optax
import pytest

from jaxhpo import nn
from jaxhpo.nn import decoding, filters, sizes
from jaxhpo.nn.cache import laid_out
from jaxhpo.nn.config import ModelConfig, SamplingConfig
from jaxhpo.optimizers.config import OptimizerConfig
from jaxhpo.study.size import train_bytes

BASE = ModelConfig(vocab_size=256)
BATCH = 8
CASES = {
    "scanned": ({}, False),
    "laid out": ({}, True),
    "deeper": ({"d_model": 128, "num_layers": 6, "num_heads": 2}, False),
    "long and rebuilt": ({"num_layers": 4, "context": 256, "remat": True}, False),
    "many tokens": ({"vocab_size": 16384}, False),
    "gated and grouped": (
        {"activation": "swiglu", "num_kv_heads": 2, "d_model": 128, "tie_embeddings": False},
        False,
    ),
    "half precision": ({"compute_dtype": "bfloat16", "d_model": 256, "num_layers": 4}, False),
}


@pytest.mark.parametrize("name", CASES)
def test_memory_to_train_is_what_the_compiled_step_takes(name):
    changes, unroll = CASES[name]
    config = replace(BASE, **changes)
    chain = optax.adamw(1e-3)
    params = jax.eval_shape(lambda: nn.init(config, jax.random.key(0)))
    moments = jax.eval_shape(chain.init, params)
    batch = {"tokens": jax.ShapeDtypeStruct((BATCH, config.context + 1), np.int32)}

    def step(params, moments, batch):
        loss = lambda p: nn.loss(config, p, batch, key=jax.random.key(0), unroll=unroll)
        value, grads = jax.value_and_grad(loss)(params)
        updates, moments = chain.update(grads, moments, params)
        return optax.apply_updates(params, updates), moments, value

    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(params, moments, batch).compile()
    report = compiled.memory_analysis()
    taken = report.argument_size_in_bytes + report.temp_size_in_bytes
    found = train_bytes(config, OptimizerConfig(), BATCH, config.remat, unroll)
    assert found.total == pytest.approx(taken, rel=0.15)


@pytest.mark.parametrize("heads", [8, 1])
def test_memory_to_generate_is_what_the_compiled_loop_takes(heads):
    config = replace(BASE, d_model=128, num_heads=8, num_kv_heads=heads, context=256)
    rows, length = 16, 240
    params = jax.eval_shape(lambda: laid_out(nn.init(config, jax.random.key(0))))
    sampling = filters.lower([SamplingConfig()] * rows)
    seeds, stops = np.zeros(rows, np.uint32), np.zeros(1, np.int32)

    def program(params, prompts):
        texts, first = decoding.begin(
            config, params, prompts, np.int32(16), sampling, seeds, stops, 256, False
        )
        return first, decoding.write(config, params, texts, length, length, False)[1]

    prompts = jax.ShapeDtypeStruct((rows, 16), np.int32)
    report = jax.jit(program).lower(params, prompts).compile().memory_analysis()
    taken = report.argument_size_in_bytes + report.temp_size_in_bytes
    weights = 4 * sizes.count_parameters(config)
    cache = rows * config.context * sizes.cache_bytes_per_token(config)
    reading = sizes.reading_bytes(config, rows, 16, config.context)
    assert weights + cache + reading == pytest.approx(taken, rel=0.15)
