"""From a config to the parts of a study: corpus, scheduler, compile groups."""

import dataclasses
import itertools
import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from jaxhpo.config import is_static, searchable_names
from jaxhpo.config.finetune import FinetuneRun
from jaxhpo.config.run import ForkRun, FunctionRun, PbtRun, Run, SearchRun, TrainRun
from jaxhpo.data.corpus import open_corpus
from jaxhpo.errors import UsageError
from jaxhpo.population import memory
from jaxhpo.population.mesh import axes_of, make_mesh
from jaxhpo.population.sharding import check_mesh
from jaxhpo.schedules import in_steps
from jaxhpo.search.distributions import Choice, Integer
from jaxhpo.search.fixed import Fixed
from jaxhpo.search.journal import Journal, Memory
from jaxhpo.search.lengths import OwnLengths
from jaxhpo.search.pbt import Pbt
from jaxhpo.search.plan import Extent, Scheduler
from jaxhpo.search.replay import Replay
from jaxhpo.search.rules import parse_rule
from jaxhpo.search.segments import cut
from jaxhpo.search.space import Space
from jaxhpo.search.together import Together, beside_fixed
from jaxhpo.study.compile_group import Statics
from jaxhpo.study.devices import axes_for
from jaxhpo.study.forking import check_data, resolve
from jaxhpo.study.groups import Groups
from jaxhpo.study.implant import take_places
from jaxhpo.study.journal import LogJournal
from jaxhpo.study.judging import Judge
from jaxhpo.study.opening import Opening
from jaxhpo.study.origin import Origin
from jaxhpo.study.stops import always_kept, check_ends
from jaxhpo.study.tuning import Tuning, judge_of, opened

SEGMENT = 100
"""Steps between two reports of a run that selects nothing."""

MOST_CORNERS = 1024
"""Corners of a space that are tried before a run."""

MOST_ENUMERATED = 1000
"""Combinations of static values that are tried out, one by one, before a search starts."""


@dataclass(frozen=True)
class Setup:
    """The parts of a study. `extent` has the compiled maxima of steps.

    The groups of foreseen points are open; the others' values are known to be allowed where there
    are few enough to try.
    """

    config: Run | FunctionRun
    corpus: Any
    """None where a function of the user's is searched"""
    scheduler: Scheduler
    space: Space
    groups: Groups
    opening: Any
    """an Opening, or None where a function is searched"""
    extent: Extent
    journal: LogJournal
    parameters: int
    """of a member (with static dimensions: of the config's own model)"""
    fingerprints: Mapping[str, str]
    """of the data: what a resumed run must find again"""
    always: Mapping[int, str] = field(default_factory=dict)
    """step -> why its checkpoint is kept for good"""
    origin: Origin | None = None
    judge: Judge = field(default_factory=Judge)
    tuning: Tuning | None = None
    """the base of a fine-tuning run"""

    @property
    def mesh(self) -> Any:
        """The devices that the run is on."""
        if self.opening is not None:
            return self.opening.mesh
        return self.groups.opened[()].engines[0].mesh

    @property
    def total_steps(self) -> int:
        """The largest step that a member reaches."""
        return self.config.steps if self.origin is None else self.origin.total_steps


def prepare(config: Run, journal: LogJournal | None = None, origin: Origin | None = None) -> Setup:
    """Opens the corpus and builds the programs' description; nothing is compiled or written yet.

    `origin` is what a fork's log says; without it its parent is asked. Raises UsageError for
    whatever of the config does not fit the data, the devices, its parent or itself.
    """
    if isinstance(config, ForkRun) and origin is None:
        config, origin = resolve(config)
    tuning = None
    if isinstance(config, FinetuneRun):
        config, tuning, corpus = opened(config)
    else:
        corpus = open_corpus(config.data, config.model.context, config.seed)
    if origin is not None:
        check_data(origin, corpus.fingerprints)
        train = dataclasses.replace(corpus.train, shift=origin.data_shift)
        corpus = dataclasses.replace(corpus, train=train)
    config = with_vocabulary(config, corpus)
    always = always_kept(config, None if origin else anneal_start(config), origin)
    space = Space.from_mapping(config.space, is_static, searchable_names(config))
    rules = map(parse_rule, config.search.constraints if isinstance(config, SearchRun) else ())
    journal = LogJournal() if journal is None else journal
    make = lambda journal: make_scheduler(config, space, journal, always, origin)
    scheduler = make(journal)
    extent, foreseen = scheduler.extent, scheduler.foreseen
    mesh = make_mesh(axes_for(config, extent.held))
    execution = config.execution
    check_mesh(config.model, config.data.batch_size, execution.accumulate, axes_of(mesh))
    searched = tuple(dict.fromkeys([*space.names, *(foreseen[0] if foreseen else ())]))
    again = lambda: make(Memory())
    opening = Opening(
        config, corpus, mesh, searched, space.static, extent, foreseen, again, tuning=tuning
    )
    groups = Groups(opening, space.static)
    space = dataclasses.replace(space, constraints=(*space.constraints, *rules))
    check_corners(space, opening)
    for point in foreseen or ([] if space.static else [{}]):
        if (reason := groups.reason(point)) is not None:
            raise UsageError(reason)
    if origin is not None:
        take_places(groups, origin)
    return Setup(
        config=config,
        corpus=corpus,
        scheduler=scheduler,
        space=space,
        groups=groups,
        opening=opening,
        extent=extent,
        journal=journal,
        parameters=memory.count_trained(config),
        fingerprints=corpus.fingerprints,
        always=always,
        origin=origin,
        judge=judge_of(config, corpus),
        tuning=tuning,
    )


def with_vocabulary(config: Run, corpus: Any) -> Run:
    """The config with the vocabulary of the tokenizer where it named none."""
    model = dataclasses.replace(config.model, vocab_size=corpus.check(config.model.vocab_size))
    return dataclasses.replace(config, model=model)


def check_corners(space: Space, opening: Opening) -> None:
    """Raises UsageError now, not in the middle of a run, where a bound is no allowed value.

    What a schedule allows depends on several of its numbers, so of these every corner is tried.
    Static values are tried in every combination that the space allows, if they are not too many.
    """
    corners = [*space.corners(), *itertools.islice(schedule_corners(space), MOST_CORNERS)]
    traced = [{n: v for n, v in point.items() if n not in space.static} for point in corners]
    opening.lower(())(traced)
    for statics in combinations(space):
        opening.config_of(statics)


def schedule_corners(space: Space) -> Iterator[dict[str, Any]]:
    """A corner of the space, with the schedule's numbers at each of their bounds."""
    base, ends = space.corners()[0], {}
    for dimension in space.dimensions:
        if dimension.name.startswith("schedule.") and dimension.name in base:
            form = dimension.distribution
            bounds = (form.decode(0.0), form.decode(1.0))
            ends[dimension.name] = form.values if isinstance(form, Choice) else bounds
    points = (
        {**base, **dict(zip(ends, c, strict=True))} for c in itertools.product(*ends.values())
    )
    return (point for point in points if space.allows(point))


def combinations(space: Space) -> tuple[Statics, ...]:
    """All combinations of a space's static values; none where they are too many to try."""
    values, total = [], 1
    for dimension in space.dimensions:
        if not dimension.static:
            continue
        form = dimension.distribution
        if isinstance(form, Choice):
            values.append([(dimension.name, value) for value in form.values])
        elif isinstance(form, Integer):
            values.append([(dimension.name, value) for value in range(form.low, form.high + 1)])
        else:
            return ()
        total *= len(values[-1])
        if total > MOST_ENUMERATED:
            return ()
    found = (_existing(dict(pairs), space) for pairs in itertools.product(*values))
    return tuple(dict.fromkeys(tuple(point.items()) for point in found if space.allows(point)))


def _existing(point: dict[str, Any], space: Space) -> dict[str, Any]:
    """The values whose dimensions exist, as far as the others tell."""
    rules = {each.name: each.when for each in space.dimensions if each.when is not None}
    gone = {n for n, rule in rules.items() if rule.known(point) and not rule.holds(point)}
    return {name: value for name, value in point.items() if name not in gone}


def make_scheduler(
    config: Run,
    space: Space,
    journal: Journal | None = None,
    always: Iterable[int] = (),
    origin: Origin | None = None,
) -> Scheduler:
    """The scheduler of a command; where it can, it stops at the steps that are `always` kept."""
    if origin is not None:
        return origin.scheduler(SEGMENT, always)
    if isinstance(config, FinetuneRun) and not config.space:
        ends = cut([*always, config.steps], min(SEGMENT, config.steps))
        return Fixed([{}] * config.seeds, config.steps, ends)
    if isinstance(config, SearchRun):
        from jaxhpo.search.table import make

        made = make(
            config.search.scheduler,
            config.search,
            space,
            config.steps,
            config.seed,
            pbt=config.pbt,
            anneal_start=anneal_start(config),
            journal=journal,
        )
        own = isinstance(config, FinetuneRun) and config.own_lengths
        return OwnLengths(made, config.steps_of) if own else made
    if isinstance(config, PbtRun):
        anneal = anneal_start(config)
        pbt = Pbt(space, config.pbt, config.steps, config.seed, anneal_start=anneal)
        check_ends(config, pbt.ends)
        return beside_fixed(pbt) if config.pbt.beside else Together({"pbt": pbt})
    segment = min(SEGMENT, config.steps)
    if isinstance(config, TrainRun) and config.schedule_from is not None:
        from jaxhpo.study.discovered import discovered

        rows = discovered(Path(config.schedule_from))
        return Replay(rows, config.steps, segment, config.seed)
    return Fixed([{}], config.steps, cut([*always, config.steps], segment))


def anneal_start(config: Run) -> int | None:
    """Step at which the final decay begins, where the schedule has a stage before it."""
    start, length = in_steps(config.schedule, config.tokens_per_step).decay(config.steps)
    return int(start) if length > 0 and config.schedule.kind == "wsd" else None


def environment() -> dict[str, Any]:
    """What decides the last bits of a result, for the record."""
    device = jax.devices()[0]
    return {
        "python": platform.python_version(),
        "jax": jax.__version__,
        "jaxlib": version("jaxlib"),
        "platform": device.platform,
        "device_kind": device.device_kind,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
        "pjrt_nproc": os.environ.get("PJRT_NPROC", ""),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "cpu": platform.processor() or platform.machine(),
    }
