"""Rungs and brackets: how long trials train before the best go on, and how many those are."""

from jaxhpo.errors import UsageError


def powers(number: int, eta: int) -> int:
    """The largest k with eta^k at most `number`.

    >>> powers(81, 3), powers(80, 3)
    (4, 3)
    """
    k = 0
    while eta ** (k + 1) <= number:
        k += 1
    return k


def rungs(steps: int, eta: int, lowest: int | None, trials: int) -> tuple[int, ...]:
    """Steps at which trials are ranked, each eta times the one before; the last is `steps`.

    They grow from `lowest`; where it is None, from the step that makes as many rungs as `trials`
    can be divided by eta. Raises UsageError where the lowest rung is longer than `steps`.

    >>> rungs(81, 3, 1, 81), rungs(600, 3, None, 16)
    ((1, 3, 9, 27, 81), (67, 200, 600))
    """
    if lowest is None:
        count = min(powers(trials, eta), powers(steps, eta))
        return tuple(-(-steps // eta ** (count - k)) for k in range(count + 1))
    check_lowest(lowest, steps)
    ends = [lowest]
    while ends[-1] * eta < steps:
        ends.append(ends[-1] * eta)
    return (*ends, steps) if ends[-1] < steps else tuple(ends)


def sizes(trials: int, eta: int, count: int) -> tuple[int, ...]:
    """Trials on each of `count` rungs: one in eta goes on, and always one.

    >>> sizes(81, 3, 5), sizes(34, 3, 4)
    ((81, 27, 9, 3, 1), (34, 11, 3, 1))
    """
    found = [trials]
    while len(found) < count:
        found.append(max(1, found[-1] // eta))
    return tuple(found)


def brackets(
    steps: int, eta: int, lowest: int | None, trials: int
) -> tuple[tuple[tuple[int, int], ...], ...]:
    """Hyperband's brackets as rungs of (trials, steps), the most aggressive first.

    With s_max = floor(log_eta(steps / lowest)), bracket s starts ceil((s_max + 1) eta^s / (s + 1))
    trials at steps / eta^s. Where `lowest` is None, s_max is floor(log_eta(trials)). Source: Li et
    al. 2018 (arXiv 1603.06560), algorithm 1; the sizes printed there for R = 81 are smaller for
    s = 3, 2, 1, as if the division inside were one of whole numbers.

    >>> for bracket in brackets(81, 3, 1, 0): print(bracket)
    ((81, 1), (27, 3), (9, 9), (3, 27), (1, 81))
    ((34, 3), (11, 9), (3, 27), (1, 81))
    ((15, 9), (5, 27), (1, 81))
    ((8, 27), (2, 81))
    ((5, 81),)
    """
    if lowest is None:
        most = min(powers(trials, eta), powers(steps, eta))
    else:
        check_lowest(lowest, steps)
        most = powers(steps // lowest, eta)
    found = []
    for s in range(most, -1, -1):
        starts = -(-(most + 1) * eta**s // (s + 1))
        ends = [-(-steps // eta ** (s - i)) for i in range(s + 1)]
        found.append(tuple(zip(sizes(starts, eta, s + 1), ends, strict=True)))
    return tuple(found)


def check_lowest(lowest: int, steps: int) -> None:
    if lowest > steps:
        raise UsageError(
            f"search.min_steps={lowest} is longer than steps={steps}: the budget is below one rung"
        )
