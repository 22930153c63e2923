"""`jaxhpo finetune`: adapters or all weights of a pretrained base, one or a population of them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jaxhpo.cli.launch import launch, show
from jaxhpo.cli.options import parse
from jaxhpo.config.finetune import FinetuneRun

if TYPE_CHECKING:
    from jaxhpo.study import Outcome


def finetune(config: FinetuneRun) -> "Outcome":
    """Fine-tunes the base that `config.base` names; with a space, searches by `config.search`.

    Raises UsageError for what can't run, Interrupted when stopped after saving, Diverged when no
    trial has a finite loss.
    """
    return launch(config)


def main(argv: Sequence[str]) -> int:
    return show(finetune(parse(FinetuneRun, argv, "jaxhpo finetune")))
