"""Every stopper by name."""

from collections.abc import Callable
from dataclasses import dataclass

from jaxhpo.errors import UsageError
from jaxhpo.search.asha import Promoting, Stopping
from jaxhpo.search.config import SearchConfig
from jaxhpo.search.halving import Bracket, Brackets, best_and_some
from jaxhpo.search.rungs import brackets, check_lowest, rungs, sizes
from jaxhpo.search.stoppers import Median, Stopper, Unstopped
from jaxhpo.search.values import nearest


@dataclass(frozen=True)
class Brief:
    """What every stopper is made from."""

    config: SearchConfig
    trials: int
    steps: int
    seed: int


def _halving(brief: Brief) -> Stopper:
    ends = _rungs(brief)
    counts = sizes(brief.trials, brief.config.eta, len(ends))
    return Brackets([Bracket(tuple(zip(counts, ends, strict=True)), brief.config.eta)])


def _asha(brief: Brief) -> Stopper:
    kind = Promoting if brief.config.asynchrony == "promote" else Stopping
    return kind(brief.trials, _rungs(brief), brief.config.eta)


def _hyperband(brief: Brief) -> Stopper:
    return Brackets([Bracket(each, brief.config.eta) for each in hyperband(brief)])


def _median(brief: Brief) -> Stopper:
    interval = brief.config.min_steps
    if interval is None:
        interval = max(1, brief.steps // 10)
    check_lowest(interval, brief.steps)
    return Median(brief.trials, brief.steps, interval, brief.config.min_samples)


def _two_stage(brief: Brief) -> Stopper:
    config, early = brief.config, round(brief.config.early_share * brief.steps)
    if not 1 <= early < brief.steps:
        raise UsageError(
            f"search.early_share={config.early_share:g} of steps={brief.steps} is no first stage; "
            "allowed: a share between one step and all but one"
        )
    if config.keep + config.continued > brief.trials:
        also = f" and search.continued={config.continued}" if config.continued else ""
        raise UsageError(
            f"search.keep={config.keep}{also} keep more trials than there are: {brief.trials}; "
            "keep fewer, or raise search.trials"
        )
    rungs = ((brief.trials, early), (config.keep + config.continued, brief.steps))
    keep = best_and_some(config.keep, config.continued, brief.seed)
    return Brackets([Bracket(rungs, keep=keep)])


STOPPERS: dict[str, Callable[[Brief], Stopper]] = {
    "none": lambda brief: Unstopped(brief.trials, brief.steps),
    "halving": _halving,
    "asha": _asha,
    "hyperband": _hyperband,
    "median": _median,
    "two-stage": _two_stage,
}


def make_stopper(name: str, brief: Brief) -> Stopper:
    """The stopper of that name. Raises UsageError naming the nearest, or what does not fit."""
    check_stopper(name)
    return STOPPERS[name](brief)


def check_stopper(name: str) -> None:
    if name not in STOPPERS:
        raise UsageError(f"search.stopper={name!r}: no such{nearest(name, list(STOPPERS))}")


def hyperband(brief: Brief) -> tuple[tuple[tuple[int, int], ...], ...]:
    """The brackets of a config; `trials` only decides how many there are by default."""
    config = brief.config
    found = brackets(brief.steps, config.eta, config.min_steps, config.trials)
    return found[: config.brackets] * config.passes


def probe_steps(name: str, brief: Brief) -> int:
    """Length of the cool-down that ranks: a share of the shortest job."""
    if brief.config.rank != "probe":
        return 0
    first = make_stopper(name, brief).bounds.tick
    return max(1, round(brief.config.probe_share * first))


def _rungs(brief: Brief) -> tuple[int, ...]:
    config = brief.config
    return rungs(brief.steps, config.eta, config.min_steps, config.trials)
