"""From a fork as a person asks for it to its sources and children: everything is decided here."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from jaxhpo.config import difference, is_static
from jaxhpo.config import replace as replaced
from jaxhpo.config.forks import PRESETS, kept_and_reset
from jaxhpo.config.run import ForkRun
from jaxhpo.errors import UsageError
from jaxhpo.record.checkpoints import Store
from jaxhpo.record.directory import RunDirectory
from jaxhpo.record.history import history
from jaxhpo.record.lineage import line, thinned
from jaxhpo.search.plan import Point
from jaxhpo.study.children import Fork, Parent
from jaxhpo.study.inheritance import config_of
from jaxhpo.study.kept import Kept
from jaxhpo.study.origin import Origin, Source, Taken

_OF_DATA = (
    *("data.source", "data.tokenizer", "data.glob", "data.held_out", "data.vocab_size"),
    *("data.column", "data.stream"),
)


def resolve(config: ForkRun) -> tuple[ForkRun, Origin]:
    """The fork that a config asks for, and the config with what its member was trained with.

    Raises UsageError where the run is no run or running, kept no such checkpoint, or where what is
    asked for does not fit what is kept.
    """
    if config.run is None:
        raise UsageError("run is not given; write jaxhpo fork RUN, such as runs/train-0001")
    run = RunDirectory.open(config.run)
    with run.quiet():
        past = history(run.path)
        origin = Origin.of_event(past.fork) if past.fork else None
        parent = Parent(Kept.of(Store(run), past), config_of(past), past, origin)
    if not past.reports:
        raise UsageError(f"{config.run} has no finished segment yet: there is nothing to fork")
    found = _sources(config, parent)
    config = _with_statics(config, found[0])
    sources = tuple(replace(source, point=_traced(source.point)) for source in found)
    check_model(config, parent, found[0])
    kept, reset = _parts(config, parent)
    fork = Fork(config, parent, sources, kept, reset)
    return config, fork.origin(str(run.path), run.name)


def _sources(config: ForkRun, parent: Parent) -> list[Source]:
    """One source for each point of the run; one for all that are averaged."""
    steps = {taken.step: parent.tokens(trial, taken.step) for trial, taken in parent.kept.members}
    if config.average:
        found = [parent.kept.find(text, "average", config.trial, steps) for text in config.average]
        found.sort(key=lambda row: row[1].step)
        if len({trial for trial, _ in found}) > 1:
            raise UsageError("average: the best trial is not the same at each step; give --trial")
        return [_source(parent, found[-1][0], [taken for _, taken in found], config.ema)]
    if config.ema is not None:
        raise UsageError(f"ema={config.ema} weighs what average names; give --average STEP,STEP")
    texts = config.at or (PRESETS[config.preset].at,)
    found = [parent.kept.find(text, "at", config.trial, steps) for text in texts]
    if len({(trial, taken.step) for trial, taken in found}) < len(found):
        raise UsageError(f"at={','.join(texts)} names one checkpoint twice; allowed: once")
    return [_source(parent, trial, [taken], None) for trial, taken in found]


def _source(parent: Parent, trial: int, taken: Sequence[Taken], ema: float | None) -> Source:
    newest = taken[-1]
    row = next(
        row for row in parent.past.plans[newest.index]["assignments"] if row["trial"] == trial
    )
    segments = thinned(line(parent.past, trial, newest.index))
    result = parent.kept.result(trial, newest.index) or {}
    rates = [rate for segment in segments for rate in segment["curves"].get("lr", ())]
    return Source(
        trial=trial,
        step=newest.step,
        tokens=parent.tokens(trial, newest.step),
        windows=parent.windows(newest.step),
        phase=parent.clock(newest.step),
        seed=row["seed"],
        lr=rates[-1] if rates else math.nan,
        loss=result.get("loss", math.nan),
        point=dict(row["point"]),
        taken=tuple(taken),
        weights=weights(len(taken), ema),
        line=tuple(segments),
    )


def weights(count: int, ema: float | None) -> tuple[float, ...]:
    """Shares of checkpoints in their average, oldest first: equal, or each `ema` of the next.

    >>> weights(2, None), weights(2, 0.5)
    ((0.5, 0.5), (0.3333333333333333, 0.6666666666666666))
    """
    raw = [(1.0 if ema is None else ema) ** (count - 1 - i) for i in range(count)]
    return tuple(each / sum(raw) for each in raw)


def check_model(config: ForkRun, parent: Parent, source: Source) -> None:
    """Raises UsageError where the model or the vocabulary is not the parent's."""
    before = parent.config
    for name, value in source.point.items():
        if is_static(name):
            before = replaced(before, name, value)
    free = {"model.remat", "model.compute_dtype"}
    if before.model.position != "learned":
        free.add("model.context")
    differing = [
        (name, old, new)
        for name, old, new in difference(before, config)
        if name.startswith("model.") and name not in free
    ]
    if differing:
        rows = "; ".join(f"{name} was {old!r}, now {new!r}" for name, old, new in differing)
        raise UsageError(f"a fork keeps its parent's model and vocabulary, but {rows}; undo it")


def check_data(origin: Origin, now: Mapping[str, Any]) -> None:
    """Raises UsageError where the tokenizer is another, or the data whose position is kept."""
    past = origin.fingerprints
    if past.get("tokenizer") != now.get("tokenizer"):
        raise UsageError(
            f"the tokenizer is not the one that {origin.name} was trained with, so that its tokens "
            "would mean other texts; fork with the same data.tokenizer"
        )
    if "data" in origin.kept and past.get("data") != now.get("data"):
        raise UsageError(
            f"the texts are not those that {origin.name} was trained on, so that the data position "
            "means nothing; add --reset data"
        )


def _parts(config: ForkRun, parent: Parent) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What is kept and reset. The position in data that has changed starts at zero by itself."""
    kept, reset = kept_and_reset(config)
    changed = {name for name, _, _ in difference(parent.config, config)}
    if "data" in kept and (changed & {*_OF_DATA, "model.context"}):
        kept, reset = tuple(part for part in kept if part != "data"), (*reset, "data")
    if config.seed != parent.config.seed and (bad := [p for p in ("data", "key") if p in kept]):
        raise UsageError(
            f"seed={config.seed}, but {' and '.join(bad)} of seed {parent.config.seed} are kept; "
            f"leave seed out, or add --reset {','.join(bad)}"
        )
    if "moments" in kept and changed & {"optimizer.kind", "optimizer.moment_dtype"}:
        raise UsageError(
            f"optimizer.kind={config.optimizer.kind}, optimizer.moment_dtype="
            f"{config.optimizer.moment_dtype} differ from the parent's, whose moments are kept; "
            "undo it, or add --reset moments"
        )
    return kept, reset


def _traced(point: Point) -> dict[str, Any]:
    return {name: value for name, value in point.items() if not is_static(name)}


def _with_statics(config: ForkRun, source: Source) -> ForkRun:
    """The config with the static values that a search gave to the member."""
    for name, value in source.point.items():
        if is_static(name):
            config = replaced(config, name, value)
    return config
