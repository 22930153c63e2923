"""What an adapter adds to a projection: functions of its inputs, never of a merged weight."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxhpo.adapters.arrays import Arrays
from jaxhpo.adapters.config import AdapterConfig
from jaxhpo.adapters.hyperparams import AdapterHyperparams
from jaxhpo.adapters.storage import column_sums_of_squares
from jaxhpo.nn.layers import dropout, product

Array = jax.Array

ALLOCATION_EPS = 1e-5
"""Added to AdaLoRA's rank where it divides alpha, as its authors and PEFT do."""


class Kernel(NamedTuple):
    """A frozen weight [I, O] as stored, and the scale f32[O] of an eight-bit one."""

    values: Array
    scale: Array | None

    def product(self, x: Array) -> Array:
        """`x` times the weight: the scale is applied to the product, so none is ever unpacked."""
        y = product(x, self.values.astype(x.dtype))
        return y if self.scale is None else y * self.scale.astype(y.dtype)


class Call(NamedTuple):
    """One application of a projection: inputs, the frozen product without bias, and the switch."""

    x: Array
    kernel: Kernel
    frozen: Array
    on: Array | None
    key: Array | None


Change = Callable[[AdapterConfig, AdapterHyperparams, Arrays, Call], tuple[Array, dict[str, Array]]]
"""The addition to `frozen`, and what is noted of the call."""


def gain(config: AdapterConfig, hyperparams: AdapterHyperparams, on: Array | None) -> Array:
    """Scale f32[R] of each direction: zero beyond the rank and where the switch is off."""
    rank = hyperparams.rank.astype(jnp.float32)
    if config.kind == "adalora":
        rank = rank + ALLOCATION_EPS
    scale = hyperparams.alpha / (jnp.sqrt(rank) if is_rank_stable(config) else rank)
    scales = jnp.where(hyperparams.mask(config.width), scale, 0.0)
    return scales if on is None else scales * on


def is_rank_stable(config: AdapterConfig) -> bool:
    """Whether alpha is divided by the rank's root (rsLoRA: Kalajdzievski 2023, 2312.03732)."""
    return config.rslora and config.kind in ("lora", "dora")


def low_rank(x: Array, arrays: Arrays, gains: Array) -> Array:
    """x A diag(gains) B: f[..., I], f[I, R], f[R, O] -> f[..., O]."""
    hidden = jnp.einsum("...i,ir->...r", x, arrays["lora_a"].astype(x.dtype))
    hidden = hidden * gains.astype(x.dtype)
    return jnp.einsum("...r,ro->...o", hidden, arrays["lora_b"].astype(x.dtype))


def lora(config: AdapterConfig, hyperparams: AdapterHyperparams, arrays: Arrays, call: Call):
    """s B A dropout(x). Source: Hu et al. 2021 (arXiv 2106.09685)."""
    x = dropout(call.x, hyperparams.dropout, call.key)
    return low_rank(x, arrays, gain(config, hyperparams, call.on)), {}


def adalora(config: AdapterConfig, hyperparams: AdapterHyperparams, arrays: Arrays, call: Call):
    """s P diag(E) Q dropout(x). Source: Zhang et al. 2023 (arXiv 2303.10512)."""
    x = dropout(call.x, hyperparams.dropout, call.key)
    return low_rank(x, arrays, gain(config, hyperparams, call.on) * arrays["lora_e"]), {}


def dora(config: AdapterConfig, hyperparams: AdapterHyperparams, arrays: Arrays, call: Call):
    """(m / |W + s B A| - 1) W x + m / |W + s B A| s B A x, the norms by output and held constant.

    |W + s B A|^2 is expanded, so that no member ever holds a weight of its own. As in PEFT, dropout
    falls on both terms' inputs. Source: Liu et al. 2024 (arXiv 2402.09353).
    """
    gains = gain(config, hyperparams, call.on)
    norm = jax.lax.stop_gradient(jnp.sqrt(changed_squares(call.kernel, arrays, gains)))
    ratio = arrays["magnitude"] / norm
    x, frozen = call.x, call.frozen
    if hyperparams.dropout is not None and call.key is not None:
        x = dropout(x, hyperparams.dropout, call.key)
        frozen = call.kernel.product(x)
    change = (ratio - 1.0).astype(x.dtype) * frozen + ratio.astype(x.dtype) * low_rank(
        x, arrays, gains
    )
    return change if call.on is None else change * call.on.astype(x.dtype), {}


def changed_squares(kernel: Kernel, arrays: Arrays, gains: Array) -> Array:
    """Squared norm f32[O] of each output's weights in W + A diag(gains) B."""
    a, b = arrays["lora_a"] * gains, arrays["lora_b"]
    weight = kernel.values.astype(jnp.float32)
    squares, crossed = column_sums_of_squares(weight), jnp.einsum("io,ir->or", weight, a)
    if kernel.scale is not None:
        squares, crossed = squares * kernel.scale**2, crossed * kernel.scale[:, None]
    own = jnp.einsum("ro,rs,so->o", b, a.T @ a, b)
    return jnp.maximum(squares + 2.0 * jnp.einsum("or,ro->o", crossed, b) + own, 0.0)


def adamole(config: AdapterConfig, hyperparams: AdapterHyperparams, arrays: Arrays, call: Call):
    """Sum of w_i s B_i A_i dropout(x) with weights from a gate and a threshold of its own.

    Noted are the balance term and `experts`, the mean number of them that a token uses. Source: Liu
    and Luo 2024 (arXiv 2405.00361).
    """
    x = call.x
    wide = x.astype(jnp.float32)
    gates = jax.nn.softmax(jnp.einsum("...i,ie->...e", wide, arrays["gate"]))
    logit = jnp.einsum("...i,i->...", wide, arrays["threshold"]) + arrays["threshold_bias"]
    threshold = hyperparams.of("threshold_max") * jax.nn.sigmoid(logit)
    weights, chosen = shares(gates, threshold)
    noted = {"balance": balance(gates, threshold), "experts": jnp.mean(jnp.sum(chosen, -1))}
    if call.on is not None:
        noted = {name: value * call.on for name, value in noted.items()}
    dropped = dropout(x, hyperparams.dropout, call.key)
    hidden = jnp.einsum("...i,eir->...er", dropped, arrays["lora_a"].astype(x.dtype))
    scales = weights[..., None] * gain(config, hyperparams, call.on)
    hidden = hidden * scales.astype(x.dtype)
    return jnp.einsum("...er,ero->...o", hidden, arrays["lora_b"].astype(x.dtype)), noted


def shares(gates: Array, threshold: Array) -> tuple[Array, Array]:
    """Weights f32[..., E] of the experts and which are chosen, of p f32[..., E], tau f32[...].

    Weights are p - tau of those with p >= tau, over their sum; where that is zero (a uniform gate
    at its own threshold), all are zero and the adapter is off.
    """
    above = gates - threshold[..., None]
    chosen = above >= 0
    kept = jnp.where(chosen, above, 0.0)
    total = jnp.sum(kept, -1, keepdims=True)
    return kept / jnp.where(total > 0, total, 1.0), chosen


def balance(gates: Array, threshold: Array) -> Array:
    """E sum_i f_i P_i, f32[]: f_i is the share of tokens that choose expert i, P_i the mean of
    p - tau.

    That mean is the authors' code; their paper's P_i is the mean of p. Every token counts, padding
    too.
    """
    above = gates - threshold[..., None]
    rows = above.reshape(-1, above.shape[-1])
    chosen = jax.lax.stop_gradient((rows >= 0).astype(jnp.float32))
    return rows.shape[-1] * jnp.sum(chosen.mean(0) * rows.mean(0))


CHANGES: dict[str, Any] = {"lora": lora, "dora": dora, "adalora": adalora, "adamole": adamole}
"""Kind -> its change."""
