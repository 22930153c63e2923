"""The config of each command that runs something."""

from jaxhpo.config.finetune import FinetuneRun
from jaxhpo.config.run import ForkRun, PbtRun, Run, SearchRun, TrainRun

KINDS: dict[str, type[Run]] = {
    "pbt": PbtRun,
    "search": SearchRun,
    "train": TrainRun,
    "finetune": FinetuneRun,
    "fork": ForkRun,
}
