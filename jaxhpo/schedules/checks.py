"""What plain numbers may be; traced values pass, for nothing is known of them."""

import itertools
import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from jaxhpo.errors import UsageError
from jaxhpo.schedules.phases import Numeric


def is_plain(*values: Numeric) -> bool:
    """Are all of these numbers of the host?"""
    return all(isinstance(value, int | float | np.number) for value in values)


def check_length(name: str, *values: Numeric | None) -> None:
    """Raises UsageError where a length is negative or not finite."""
    for value in values:
        if value is not None and is_plain(value) and not 0 <= value < math.inf:
            raise UsageError(f"{name}={value:g}; allowed: a length, 0 or more")


def check_positive(name: str, *values: Numeric | None) -> None:
    """Raises UsageError where a number is not above zero and finite."""
    for value in values:
        if value is not None and is_plain(value) and not 0 < value < math.inf:
            raise UsageError(f"{name}={value:g}; allowed: a number above 0")


def check_share(name: str, value: Numeric) -> None:
    """Raises UsageError where a share is not between zero and one."""
    if is_plain(value) and not 0 <= value <= 1:
        raise UsageError(f"{name}={value:g} is a share of the peak; allowed: 0 to 1")


def check_rate(name: str, value: Numeric) -> None:
    """Raises UsageError where a rate is negative or not finite."""
    if is_plain(value) and not 0 <= value < math.inf:
        raise UsageError(f"{name}={value:g}; allowed: a finite rate, 0 or more")


def check_increasing(name: str, values: Sequence[Numeric]) -> None:
    """Raises UsageError where numbers do not grow from each to the next."""
    if is_plain(*values) and any(b <= a for a, b in itertools.pairwise(values)):
        listed = ", ".join(f"{value:g}" for value in values)
        raise UsageError(f"{name}={listed}; allowed: each later than the one before")


def remainder(whole: Numeric, parts: Numeric, complaint: str) -> Numeric:
    """What is left of a length; of traced ones at least zero.

    Raises UsageError where plain numbers leave less than nothing, with the complaint, which may
    have {whole:g} and {parts:g} in it.
    """
    left = whole - parts
    if not is_plain(left):
        return jnp.maximum(left, 0.0)
    if left < -1e-9 * abs(whole):
        raise UsageError(complaint.format(whole=whole, parts=parts))
    return max(left, 0.0)
