"""Where segments end."""

from collections.abc import Iterable, Sequence

from jaxhpo.errors import UsageError


def cut(stops: Iterable[int], longest: int) -> tuple[int, ...]:
    """Ends of segments of at most `longest` steps, from step zero, that halt at every stop.

    >>> cut([20, 100], 50)
    (20, 70, 100)
    """
    ends, at = [], 0
    for stop in sorted(set(stops)):
        while stop - at > longest:
            at += longest
            ends.append(at)
        at = stop
        ends.append(stop)
    return tuple(ends)


def longest(ends: Sequence[int]) -> int:
    """Length of the longest segment, from step zero.

    >>> longest((20, 70, 100))
    50
    """
    return max(end - start for start, end in zip((0, *ends), ends, strict=False))


def check_length(name: str, value: int) -> int:
    """`value`, if it is a number of steps. Raises UsageError otherwise."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UsageError(f"{name}={value!r} must be a whole number of at least 1")
    return value


def check_seed(seed: int) -> int:
    """`seed`, if numpy takes it. Raises UsageError otherwise."""
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise UsageError(f"seed={seed!r} must be a whole number of at least 0")
    return seed
