"""How a rate goes from the first value of a phase to its last."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

_TINY = 1e-30


class Progress(NamedTuple):
    """Shares of a phase that are done and left, and the steps passed.

    Both shares are given, never one minus the other, to keep small rates' digits.
    """

    done: jax.Array
    left: jax.Array
    passed: jax.Array


def _hold(at, begin, end, bend):
    return begin


def _linear(at, begin, end, bend):
    return at.left * begin + at.done * end


def _powered(left, done, begin, end, power):
    """From begin to end with weight left**power for begin and the rest for end."""
    # the smaller weight is formed with all its digits, the other is what it leaves of one
    few, late = left**power, -jnp.expm1(power * jnp.log1p(-done))
    over_half = few > 0.5
    first, last = jnp.where(over_half, 1.0 - late, few), jnp.where(over_half, late, 1.0 - few)
    plain = power == 1.0  # exp(log(x)) would cost the last digits
    return jnp.where(plain, left, first) * begin + jnp.where(plain, done, last) * end


def _polynomial(at, begin, end, bend):
    return _powered(at.left, at.done, begin, end, bend)


def _cosine(at, begin, end, bend):
    # sin^2(x/2) is (1 - cos x)/2 without the cancellation that eats the last steps in float32
    left, done = jnp.sin(jnp.pi / 2 * at.left) ** 2, jnp.sin(jnp.pi / 2 * at.done) ** 2
    return _powered(left, done, begin, end, bend)


def _one_minus_sqrt(at, begin, end, bend):
    root = jnp.sqrt(at.done)
    return at.left / (1.0 + root) * begin + root * end


def _exponential(at, begin, end, bend):
    return jnp.maximum(begin * jnp.exp2(-at.passed / bend), end)


def _geometric(at, begin, end, bend):
    # from the nearer of the two values, so that the exponent's error is halved
    slope = jnp.log(jnp.maximum(end, _TINY) / jnp.maximum(begin, _TINY))
    early = at.done < 0.5
    exponent = slope * jnp.where(early, at.done, -at.left)
    return jnp.where(early, begin, end) * jnp.exp(exponent)


def _inverse(at, begin, end, bend):
    return end * (begin / jnp.maximum(at.done * begin + at.left * end, _TINY))


def _inverse_sqrt(at, begin, end, bend):
    return jnp.maximum(begin * jnp.sqrt(bend / (at.passed + bend)), end)


SHAPES = {
    "hold": _hold,
    "linear": _linear,
    "polynomial": _polynomial,
    "cosine": _cosine,
    "1-sqrt": _one_minus_sqrt,
    "exponential": _exponential,
    "geometric": _geometric,
    "inverse": _inverse,
    "inverse_sqrt": _inverse_sqrt,
}
"""Name -> (progress, begin, end, bend) -> rate. `bend` is the shape's one further number: the power
of a polynomial or cosine, the half-life of an exponential, the timescale of an inverse root, the
last two in steps; for these two `end` is a lower bound.

Sources: 1-sqrt Hagele et al. 2024 (arXiv 2405.18392); exponential Hu et al. 2024 (2404.06395);
inverse (1/rate linear) Wen et al. 2024 (2410.05192); inverse_sqrt Vaswani et al. 2017 (1706.03762).
"""
