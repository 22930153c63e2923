"""Every scheduler by name; the contract test drives each of them."""

from collections.abc import Sequence

from jaxhpo.search.config import PbtConfig, SearchConfig
from jaxhpo.search.fixed import Fixed
from jaxhpo.search.journal import Journal
from jaxhpo.search.pbt import Pbt
from jaxhpo.search.plan import Point, Scheduler
from jaxhpo.search.replay import Replay
from jaxhpo.search.space import Space
from jaxhpo.search.together import Together

SCHEDULERS: dict[str, type] = {
    "fixed": Fixed,
    "pbt": Pbt,
    "replay": Replay,
    "together": Together,
}


def make(
    name: str,
    config: SearchConfig,
    space: Space,
    steps: int,
    seed: int,
    *,
    pbt: PbtConfig | None = None,
    anneal_start: int | None = None,
    initial: Sequence[Point] = (),
    journal: Journal | None = None,
) -> Scheduler:
    """The scheduler that a user names (`config.scheduler`); every full trial has `steps` steps.

    `pbt` and `anneal_start` are for pbt and pb2, `initial` are the points to begin with, `journal`
    keeps the answers of a shared database. A scheduler of a shared study has `close()`. Raises
    UsageError naming the nearest scheduler, proposer or stopper, or what does not fit.
    """
    raise NotImplementedError(name)
