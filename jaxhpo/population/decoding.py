"""Compiled decoding of one member."""

from typing import Any

import jax
import numpy as np

from jaxhpo import nn
from jaxhpo.nn.config import ModelConfig


def sample(
    model: ModelConfig, params: Any, prompt: np.ndarray, length: int, temperature: float, seed: int
) -> np.ndarray:
    """`length` tokens i32 drawn after `prompt` i32[N]; equal seeds give equal tokens."""

    def draw(params: Any, prompt: jax.Array, temperature: jax.Array, seed: jax.Array) -> jax.Array:
        return nn.sample(model, params, prompt, length, temperature, jax.random.key(seed))

    numbers = np.float32(temperature), np.uint32(seed)
    return np.asarray(jax.jit(draw)(params, np.asarray(prompt, np.int32), *numbers))
