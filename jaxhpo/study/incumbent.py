"""Which trial leads: the lowest loss among those that came furthest."""

import math
from collections.abc import Callable, Mapping

from jaxhpo.search.plan import Result

Found = Mapping[int, tuple[Result, str]]


def finalists(results: Found, everyone: bool = False) -> dict[int, tuple[Result, str]]:
    """The newest results of the trials that reached the largest step, by trial.

    With `everyone` all trials: those of a fork were meant to end at steps of their own.
    """
    if everyone:
        return dict(results)
    finite = [result.step for result, _ in results.values() if math.isfinite(result.loss)]
    furthest = max(finite or [result.step for result, _ in results.values()])
    return {trial: found for trial, found in results.items() if found[0].step == furthest}


def best_of(
    results: Found, everyone: bool = False, cost: Callable[[Result], float] = lambda r: r.loss
) -> Result:
    """The lowest finite cost at the largest step, of the trials searched where there are any.

    `results` are the newest of each trial, with the groups that plans named; "fixed" is what is
    not searched but held beside it.
    """
    searched = {t: found for t, found in results.items() if found[1] != "fixed"} or results
    last = [result for result, _ in finalists(searched, everyone).values()]
    return min(last, key=lambda r: (not math.isfinite(cost(r)), cost(r), r.trial))
