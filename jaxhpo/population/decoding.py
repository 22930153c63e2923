"""Compiled decoding of one member."""

import functools
from typing import Any

import jax
import numpy as np

from jaxhpo import nn
from jaxhpo.nn.config import ModelConfig


def sample(
    model: ModelConfig, params: Any, prompt: np.ndarray, length: int, temperature: float, seed: int
) -> np.ndarray:
    """`length` tokens i32 drawn after `prompt` i32[N]; equal seeds give equal tokens."""
    draw = jax.jit(functools.partial(nn.sample, model), static_argnames="length")
    return np.asarray(
        draw(
            params,
            np.asarray(prompt, np.int32),
            length=length,
            temperature=np.float32(temperature),
            key=jax.random.key(seed),
        )
    )
