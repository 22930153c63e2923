"""Rows that hold several texts: each is computed as if it stood alone."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from jaxhpo import nn
from jaxhpo.nn.config import ModelConfig

TINY = ModelConfig(num_layers=2, d_model=16, num_heads=4, vocab_size=32, context=16, init_std=0.3)
GROUPED = replace(TINY, num_kv_heads=2, position="none")


@pytest.mark.parametrize("config", [TINY, GROUPED], ids=["rotary", "grouped"])
def test_the_loss_of_packed_texts_is_the_masked_mean_of_each_one_alone(config) -> None:
    params = nn.init(config, jax.random.key(0))
    random = np.random.default_rng(0)
    texts = [random.integers(1, 32, size) for size in (5, 8)]
    masks = [np.array([0, 1, 1, 1]), np.array([0, 0, 0, 1, 1, 0, 1])]
    row = np.concatenate([*texts, [0]])[None].astype(np.int32)
    # between two texts the first one's last token has the second's first as its next: no target
    batch = {
        "tokens": row[:, :-1],
        "labels": row[:, 1:],
        "mask": np.concatenate([masks[0], [0], masks[1], [0]])[None].astype(np.float32),
        "segments": np.array([[0] * 5 + [1] * 8]),
    }
    total = 0.0
    for text, mask in zip(texts, masks, strict=True):
        logits = nn.apply(config, params, text[None, :-1].astype(np.int32))
        logs = jax.nn.log_softmax(np.asarray(logits[0], np.float64))
        total -= float((np.asarray(logs)[np.arange(len(mask)), text[1:]] * mask).sum())
    found = float(nn.loss(config, params, batch))
    assert found == pytest.approx(total / (masks[0].sum() + masks[1].sum()), rel=1e-5)
    del batch["segments"]
    assert float(nn.loss(config, params, batch)) != pytest.approx(found, rel=1e-4)
