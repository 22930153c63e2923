"""What several experiments measure with: losses on fresh text, and paired intervals."""

import math
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

T_975 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
"""Student's t at 97.5% by number of pairs."""


def fresh_loss(config: Any, folder: Path, batches: int) -> float:
    """Mean held-out loss in nats of a run's best model, on windows that its search did not use."""
    import jax
    import numpy as np
    from safetensors.numpy import load_file

    from jaxhpo import nn
    from jaxhpo.data.corpus import open_corpus

    corpus = open_corpus(replace(config.data, eval_batches=batches), config.model.context, 0)
    model = replace(config.model, vocab_size=corpus.check(config.model.vocab_size))
    params: dict = {}
    for name, leaf in load_file(folder / "best" / "model.safetensors").items():
        *path, last = name.split(".")
        node = params
        for part in path:
            node = node.setdefault(part, {})
        node[last] = leaf
    loss = jax.jit(lambda params, batch: nn.loss(model, params, batch, unroll=True))
    losses = [
        float(loss(params, jax.tree.map(lambda x, i=i: x[i], corpus.held_out)))
        for i in range(batches)
    ]
    return float(np.mean(losses))


def bigram(config: Any) -> float:
    """Held-out loss in nats of the byte-bigram model of the training part."""
    from jaxhpo.data.corpus import open_corpus

    return open_corpus(config.data, config.model.context, 0).bigram_loss()


def paired(a: list[float], b: list[float]) -> tuple[float, float]:
    """Mean of a - b and half the width of its 95% interval, by Student's t over pairs."""
    gaps = [x - y for x, y in zip(a, b, strict=True)]
    spread = statistics.stdev(gaps) / math.sqrt(len(gaps))
    return statistics.mean(gaps), T_975[len(gaps)] * spread


def scheduler_of(config: Any) -> Any:
    """The scheduler that a config's run would follow; nothing is compiled or written."""
    from jaxhpo.config import is_static, searchable_names
    from jaxhpo.search.space import Space
    from jaxhpo.study.setup import make_scheduler

    space = Space.from_mapping(config.space, is_static, searchable_names(config))
    return make_scheduler(config, space)
