"""A run from its config to its end, and a run that goes on."""

import shutil
import time
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jaxhpo.config import from_dict, refuse_drift, to_dict, to_toml
from jaxhpo.config.finetune import FinetuneRun
from jaxhpo.config.kinds import KINDS
from jaxhpo.config.run import FunctionRun, Run, SearchRun
from jaxhpo.errors import UsageError
from jaxhpo.population.cache import use_compilation_cache
from jaxhpo.population.config import DistributedConfig
from jaxhpo.record.checkpoints import Store
from jaxhpo.record.directory import CONFIG, RunDirectory
from jaxhpo.record.history import History, history
from jaxhpo.record.log import EventLog
from jaxhpo.record.signals import StopSignals
from jaxhpo.record.together import StoreTogether
from jaxhpo.record.trackers.composite import Composite
from jaxhpo.record.trackers.noop import NoTracker
from jaxhpo.record.trackers.protocol import ForkedFrom, RunInfo
from jaxhpo.record.trackers.table import make_tracker
from jaxhpo.search.config import COPYING
from jaxhpo.study.compile_group import CompileGroup
from jaxhpo.study.config_of import without_secrets
from jaxhpo.study.groups import compile_all
from jaxhpo.study.hosts import PREPARING, Hosts, joined
from jaxhpo.study.implant import adopt, implant
from jaxhpo.study.journal import LogJournal
from jaxhpo.study.loop import Study
from jaxhpo.study.meter import meter_of
from jaxhpo.study.origin import Origin, describe
from jaxhpo.study.outcome import Outcome, conclude, concluded
from jaxhpo.study.recorder import Recorder
from jaxhpo.study.restoring import check_fingerprints, restore
from jaxhpo.study.roles import check_same, created, locked, logged, opened, settled, watch
from jaxhpo.study.setup import Setup, environment, prepare
from jaxhpo.study.tuning import resolved_as
from jaxhpo.study.watchdog import Watchdog


def execute(config: Run) -> Outcome:
    """Runs a config to its end in a new run directory, or with `resume = "auto"` carries one on.

    Raises UsageError before anything is written where the config can't run; Interrupted after
    saving, when asked to stop; Diverged when no member is finite; Lost without another process.
    """
    with joined(config.distributed, config.execution, config.members) as hosts:
        config = settled(config, hosts)
        there = lambda: config.out is not None and (Path(config.out) / CONFIG).exists()
        if hosts.from_first(lambda: config.resume == "auto" and there(), "whether to resume"):
            return carry_on(Path(config.out or ""), config, hosts)
        setup = hosts.together(lambda: begin(config, hosts), "that all is set up", PREPARING)
        check_same(setup, hosts)
        run = created(config, hosts)
        if setup.origin is not None:
            hosts.from_first(lambda: adopted(setup.origin, run), "the fork's checkpoints")
        return carry_out(setup, run, hosts=hosts)


def resume(
    path: Path, config: Run | None = None, distributed: DistributedConfig | None = None
) -> Outcome:
    """Carries on the run in `path` from its newest checkpoint that verifies; a finished run is
    returned as it is. `config` is what it is asked to be now, None: what it was.

    Raises UsageError where `path` is no run directory or is in use, or where `config` differs from
    the run's own in what is computed, naming the fields; else as `execute`.
    """
    now = started(history(RunDirectory.open(path).path)) if config is None else config
    distributed = now.distributed if distributed is None else distributed
    with joined(distributed, now.execution, now.members) as hosts:
        return carry_on(path, config, hosts)


def carry_on(path: Path, config: Run | None, hosts: Hosts) -> Outcome:
    """`resume`, by processes that have joined."""
    run = hosts.together(lambda: opened(path, hosts), "that the run directory is there")
    with locked(run, hosts):
        past = hosts.together(lambda: history(run.path), "that the log is read")
        hosts.same("the event log", {"events": len(past.events), "rewinds": past.rewinds})
        before = hosts.together(lambda: started(past), "how the run began")
        if config is not None:
            now = without_secrets(_as_resolved(before, config))
            hosts.together(lambda: refuse_drift(before, now), "drift")
        if (outcome := concluded(past)) is not None:
            return replace(outcome, first=hosts.first)
        config = before if config is None else config
        setup = hosts.together(lambda: begin(config, hosts, past), "that all is set up", PREPARING)
        check_same(setup, hosts)
        check_fingerprints(past, setup.fingerprints)
        return carry_out(setup, run, past, hosts)


def started(past: History) -> Run:
    """The config that a run began with."""
    if past.start is None:
        raise UsageError(f"{past.path.parent} has an empty log; remove it and start again")
    if past.start["command"] not in KINDS:
        raise UsageError(
            f"{past.path.parent} was made by search_function; call it again with "
            f"out={str(past.path.parent)!r} and resume='auto'"
        )
    return from_dict(KINDS[past.start["command"]], past.start["config"])


def adopted(origin: Origin, run: RunDirectory) -> None:
    """Links a fork's checkpoints into its new directory, or leaves none behind."""
    try:
        adopt(origin, run)
    except BaseException:
        shutil.rmtree(run.path, ignore_errors=True)
        raise


def begin(config: Run, hosts: Hosts, past: History | None = None) -> Setup:
    """Everything that can be refused, before anything is compiled or written."""
    use_compilation_cache(config.execution)
    origin = Origin.of_event(past.fork) if past is not None and past.fork else None
    return prepare(config, LogJournal(past, hosts), origin)


def carry_out(
    setup: Setup, run: RunDirectory, past: History | None = None, hosts: Hosts | None = None
) -> Outcome:
    """Compiles, restores where there is something to restore, and runs to the end."""
    hosts = Hosts() if hosts is None else hosts
    begun, config = time.monotonic(), setup.config
    tracker = make_tracker(config.tracker) if hosts.first else Composite([NoTracker()])
    leave = getattr(setup.scheduler, "close", lambda: None)
    with locked(run, hosts), StopSignals() as stop, logged(run, hosts) as log, ExitStack() as left:
        left.callback(leave)
        told: dict[str, Any] = {
            "on_commit": lambda *what: recorder.committed(*what),
            "note": tracker.note,
        }
        store = (
            StoreTogether(run, config.checkpoint, hosts, **told)
            if hosts.several
            else Store(run, config.checkpoint, **told)
        )
        recorder = Recorder(
            run,
            log,
            store,
            tracker,
            setup.total_steps,
            setup.extent.trained,
            config.checkpoint.every_seconds,
            setup.always,
            setup.origin,
            meter_of(config, setup.mesh),
        )
        with recorder.store:
            if past is None and hosts.first:
                open_record(setup, run, log)
            watchdog = watch(run, hosts)
            study = Study(
                setup.scheduler,
                setup.groups,
                recorder,
                judge=setup.judge,
                hosts=hosts,
                watchdog=watchdog,
            )
            if past is None:
                setup.journal.bind(log)
            plan = setup.scheduler.first() if past is None else restore(study, past)
            if setup.origin is not None and study.index == 0:
                implant(setup.groups, setup.origin, run)
            setup.journal.bind(log)
            recorder.measured_against()
            for text in [] if setup.origin is None else describe(setup.origin):
                tracker.note(text)
            tracker.note(f"{run.path}: compiling")
            compile_all(setup.groups.expected(plan), recorder.compiled)
            setup.groups.on_open = lambda group: compile_late(group, recorder, watchdog)
            recorder.begin(run_info(setup, run, study))
            hosts.from_first(lambda: None, "that all is compiled", PREPARING)
            study.run(plan, lambda: stop.requested)
            return conclude(study, setup, run, begun)


def compile_late(group: CompileGroup, recorder: Recorder, watchdog: Watchdog) -> None:
    """A group that is opened in the middle of a run; the segment is not slow for it."""
    watchdog.excuse()
    compile_all([group], recorder.compiled)


def run_info(setup: Setup, run: RunDirectory, study: Study) -> RunInfo:
    """What trackers are told at the start."""
    config, trials = setup.config, None
    if isinstance(config, SearchRun | FunctionRun):
        foreseen = setup.scheduler.foreseen
        trials = config.search.trials if foreseen is None else len(foreseen)
        copying = config.search.scheduler in COPYING  # search.trials is not how many there will be
        trials = trials if config.space and not copying else None
    return RunInfo(
        name=run.name,
        directory=run.path,
        total_steps=setup.total_steps,
        members=config.members,
        config=to_dict(without_secrets(config)),
        step=study.groups.step(),
        parent=None if setup.origin is None else forked_from(setup.origin, study.index == 0),
        trials=trials,
    )


def forked_from(origin: Origin, fresh: bool) -> ForkedFrom:
    """What trackers are told of a fork's parent."""
    sources = origin.sources
    return ForkedFrom(
        name=origin.name,
        directory=Path(origin.run),
        id=origin.id,
        preset=origin.preset,
        trials={
            len(sources) + i: (sources[child.source].trial, sources[child.source].step)
            for i, child in enumerate(origin.children)
        },
        fresh=fresh,
    )


def open_record(setup: Setup, run: RunDirectory, log: EventLog) -> None:
    """The first lines of a log: what runs, on what, and the baseline to beat."""
    config, corpus = without_secrets(setup.config), setup.corpus
    run.write_text(CONFIG, to_toml(config))
    text = {}
    if isinstance(config, Run):
        tokens = config.tokens_per_step
        text = {"bytes_per_token": corpus.bytes_per_token, "tokens_per_step": tokens}
    log.append(
        "start",
        version=version("jaxhpo"),
        command=config.command,
        config=to_dict(config),
        space=dict(config.space),
        fingerprints=dict(setup.fingerprints),
        environment=environment(),
        members=config.members,
        parameters=setup.parameters,
        **text,
        fsync=True,
    )
    if setup.origin is not None:
        log.append("fork", **setup.origin.to_event(), fsync=True)
    if corpus is not None and (baseline := corpus.baseline()) is not None:
        name, loss = baseline
        log.append("baseline", name=name, loss=loss, bits_per_byte=corpus.bits_per_byte(loss))


def _as_resolved(before: Run, config: Run) -> Run:
    """A config that left something to the data or the base means what the run resolved."""
    if isinstance(before, FinetuneRun) and isinstance(config, FinetuneRun):
        return resolved_as(before, config)
    if config.model.vocab_size is not None:
        return config
    return replace(config, model=replace(config.model, vocab_size=before.model.vocab_size))
