"""Every scheduler by name; the contract test drives each of them."""

from jaxhpo.search.fixed import Fixed
from jaxhpo.search.pbt import Pbt
from jaxhpo.search.replay import Replay
from jaxhpo.search.together import Together

SCHEDULERS: dict[str, type] = {
    "fixed": Fixed,
    "pbt": Pbt,
    "replay": Replay,
    "together": Together,
}
