"""How varied a text is: host code on token ids."""

from collections.abc import Sequence


def distinct(tokens: Sequence[int], n: int) -> float:
    """Different n-grams as a share of all (Li et al. 2016, arXiv 1510.03055); NaN where none fits.

    >>> distinct([1, 2, 1, 2, 1], 2)
    0.5
    """
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return len(set(grams)) / len(grams) if grams else float("nan")


def repetition(tokens: Sequence[int], n: int = 4) -> float:
    """Share of n-grams that came before: 1 - `distinct` (Welleck et al. 2020, arXiv 1908.04319)."""
    return 1.0 - distinct(tokens, n)
