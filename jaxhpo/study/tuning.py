"""From a fine-tuning config to its base, data, task and judge."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxhpo import adapters
from jaxhpo.config.finetune import FinetuneRun, check_steps
from jaxhpo.config.run import Run
from jaxhpo.data.corpus import open_corpus
from jaxhpo.data.supervised import Supervised, open_examples
from jaxhpo.errors import UsageError
from jaxhpo.population import memory
from jaxhpo.population.headed import HeadedModel
from jaxhpo.population.placing import Placement
from jaxhpo.population.task import LanguageModel
from jaxhpo.population.transfer import put
from jaxhpo.population.tuning import AdapterTuning, FullTuning
from jaxhpo.search.space import Space
from jaxhpo.study.bases import HEADED, Base, open_base, shaped
from jaxhpo.study.judging import Judge
from jaxhpo.study.metrics import cost, measure


@dataclass
class Tuning:
    """The base of a run, held once for all groups, whatever they store it as."""

    base: Base
    stored: dict[Any, Any] = dataclasses.field(default_factory=dict)

    def shared(self, config: FinetuneRun, mesh: Any) -> Any:
        """What all members share: the frozen base as it is stored, or the weights they start
        from; on the devices once."""
        kind = config.adapter.base_dtype if config.adapter.kind != "none" else None
        if kind not in self.stored:
            params = self.base.params
            stored = params if kind is None else adapters.store(params, kind)
            self.stored[kind] = put(stored, Placement(mesh).shared(stored))
        return self.stored[kind]


def opened(config: FinetuneRun) -> tuple[FinetuneRun, Tuning, Any]:
    """The config with what base and data decide, the base, and the corpus.

    Raises UsageError for whatever of the two can't be used.
    """
    if config.data.languages is not None:
        raise UsageError(
            f"data.languages={config.data.languages} is of train, pbt and search; to finetune on "
            "pairs, use a table with task=instructions, examples.text and examples.label"
        )
    base = open_base(config)
    config = dataclasses.replace(config, model=base.model)
    corpus = open_data(config, base)
    if isinstance(corpus, Supervised):
        config = dataclasses.replace(
            config, examples=dataclasses.replace(config.examples, classes=corpus.classes)
        )
    return counted(config, corpus), Tuning(base), corpus


def resolved_as(before: FinetuneRun, config: FinetuneRun) -> FinetuneRun:
    """A config as the run `before` resolved it, where it leaves that to base and data."""
    examples, changes = config.examples, {}
    if not examples.classes:
        changes["examples"] = dataclasses.replace(examples, classes=before.examples.classes)
    if config.epoch_examples is None:
        changes["epoch_examples"] = before.epoch_examples
    if config.epochs is not None or "epochs" in config.space:
        check_steps(config, before.steps)
        changes["steps"] = before.steps
    return dataclasses.replace(config, model=shaped(config.model, before.model), **changes)


def open_data(config: FinetuneRun, base: Base) -> Any:
    """The corpus of a task, its fingerprints with that of the base."""
    data, context = config.data, config.model.context
    if config.task == "language-modelling":
        corpus = open_corpus(data, context, config.seed, tokenizer=base.tokenizer)
    else:
        vocab = config.model.vocab_size or base.tokenizer.vocab_size
        corpus = open_examples(
            data, config.examples, config.task, context, config.seed, base.tokenizer, vocab
        )
    prints = {**corpus.fingerprints, "base": base.fingerprint}
    return dataclasses.replace(corpus, fingerprints=prints)


def counted(config: FinetuneRun, corpus: Any) -> FinetuneRun:
    """The config with the length of an epoch, and where epochs are given or searched the steps of
    the longest trial."""
    there = corpus.train_examples if isinstance(corpus, Supervised) else corpus.train.windows
    if (config.epoch_examples or 0) > there:
        raise UsageError(
            f"epoch_examples={config.epoch_examples}, and the training part has {there}; allowed: "
            f"up to {there}"
        )
    config = dataclasses.replace(config, epoch_examples=config.epoch_examples or there)
    if config.epochs is None and "epochs" not in config.space:
        return config
    steps = longest(config)
    check_steps(config, steps)
    return dataclasses.replace(config, steps=steps)


def longest(config: FinetuneRun) -> int:
    """The steps of the longest trial that the space allows."""
    ends: dict[str, tuple[Any, ...]] = {}
    for dimension in Space.from_mapping(
        {name: config.space[name] for name in config.own_lengths},
        lambda name: name != "epochs",
        list(config.own_lengths),
    ).dimensions:
        form = dimension.distribution
        ends[dimension.name] = getattr(form, "values", (form.decode(0.0), form.decode(1.0)))
    point = {}
    if "epochs" in ends:
        point["epochs"] = max(map(_positive, ends["epochs"]))
    if "data.batch_size" in ends:
        point["data.batch_size"] = min(ends["data.batch_size"])
    return config.steps_of(point)


def _positive(epochs: Any) -> float:
    if isinstance(epochs, str) or epochs <= 0:
        raise UsageError(f"space: epochs={epochs}; allowed: numbers above 0")
    return float(epochs)


def task_of(config: Run) -> Any:
    """The `Task` that a run trains."""
    named = dict(
        model=config.model,
        update_rule=config.optimizer,
        unroll=memory.unrolled(config),
        diagnose_every=config.tracker.diagnose_every,
    )
    if not isinstance(config, FinetuneRun):
        return LanguageModel(**named)
    if config.task in HEADED:
        number = config.task == "regression"
        inner = HeadedModel(
            **named,
            head=config.head,
            outputs=config.outputs,
            kind="number" if number else "classes",
        )
    else:
        inner = LanguageModel(**named)
    if config.adapter.kind == "none":
        return FullTuning(inner)
    return AdapterTuning(inner, config.adapter)


def judge_of(config: Run, corpus: Any) -> Judge:
    """What the trials of a run are measured and ranked by."""
    if not isinstance(config, FinetuneRun):
        return Judge(shares=_shares(corpus))
    headed = isinstance(corpus, Supervised) and config.task in HEADED
    labels = corpus.labels if headed else np.zeros(0)

    def measured(loss: float, predictions: np.ndarray | None) -> dict[str, float]:
        if predictions is not None:
            predictions = np.asarray(predictions).reshape(-1)[: len(labels)]
        return measure(config.task, loss, predictions, labels, len(config.examples.classes))

    return Judge(
        measure=measured,
        metric=config.metric,
        cost=cost,
        everyone=bool(config.own_lengths),
        shares=_shares(corpus),
    )


def _shares(corpus: Any) -> np.ndarray | None:
    """What each held-out batch counts, f64[E] with a mean of one: by the tokens of its answers."""
    if "mask" not in corpus.held_out:
        return None
    tokens = corpus.held_out["mask"].sum((-2, -1), dtype=np.float64)
    return tokens / tokens.mean()
