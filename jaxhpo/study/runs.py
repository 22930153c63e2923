"""A run from its config to its end, and a run that goes on."""

import shutil
import time
from collections.abc import Mapping
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
from jaxhpo.population.config import prepare_backend
from jaxhpo.record.checkpoints import Store
from jaxhpo.record.directory import CONFIG, RunDirectory
from jaxhpo.record.history import History, history
from jaxhpo.record.log import EventLog
from jaxhpo.record.signals import StopSignals
from jaxhpo.record.trackers.protocol import ForkedFrom, RunInfo
from jaxhpo.record.trackers.table import make_tracker
from jaxhpo.search.config import COPYING
from jaxhpo.search.plan import Plan
from jaxhpo.study.groups import compile_all
from jaxhpo.study.implant import adopt, implant
from jaxhpo.study.journal import LogJournal
from jaxhpo.study.loop import Study
from jaxhpo.study.meter import meter_of
from jaxhpo.study.origin import Origin, describe
from jaxhpo.study.outcome import Outcome, conclude, concluded
from jaxhpo.study.recorder import Recorder
from jaxhpo.study.replayed import replay, report_of
from jaxhpo.study.setup import Setup, environment, prepare
from jaxhpo.study.tuning import resolved_as


def execute(config: Run) -> Outcome:
    """Runs a config to its end in a new run directory, or with `resume = "auto"` carries one on.

    Raises UsageError before anything is written where the config can't run; Interrupted after
    saving, when asked to stop; Diverged when no member is finite.
    """
    if config.resume == "auto" and config.out is not None and (Path(config.out) / CONFIG).exists():
        return resume(Path(config.out), config)
    setup = begin(config)
    run = RunDirectory.create(config.out, prefix=config.command)
    if setup.origin is not None:
        adopted(setup.origin, run)
    return carry_out(setup, run)


def resume(path: Path, config: Run | None = None) -> Outcome:
    """Carries on the run in `path` from its newest checkpoint that verifies; a finished run is
    returned as it is.

    Raises UsageError where `path` is no run directory or is in use, or where `config` differs from
    the run's own in what is computed, naming the fields.
    """
    run = RunDirectory.open(path)
    with run.lock():
        past = history(run.path)
        if past.start is None:
            raise UsageError(f"{path} has an empty log; remove it and start again")
        if past.start["command"] not in KINDS:
            raise UsageError(
                f"{path} was made by search_function; call it again with out={str(path)!r} and "
                "resume='auto'"
            )
        before = from_dict(KINDS[past.start["command"]], past.start["config"])
        if config is not None:
            refuse_drift(before, _as_resolved(before, config))
        if (outcome := concluded(run)) is not None:
            return outcome
        setup = begin(before if config is None else config, past)
        check_fingerprints(past, setup.fingerprints)
        return carry_out(setup, run, past)


def adopted(origin: Origin, run: RunDirectory) -> None:
    """Links a fork's checkpoints into its new directory, or leaves none behind."""
    try:
        adopt(origin, run)
    except BaseException:
        shutil.rmtree(run.path, ignore_errors=True)
        raise


def begin(config: Run, past: History | None = None) -> Setup:
    """Everything that can be refused, before anything is compiled or written."""
    prepare_backend(config.execution, config.members)
    use_compilation_cache(config.execution)
    origin = Origin.of_event(past.fork) if past is not None and past.fork else None
    return prepare(config, LogJournal(past), origin)


def carry_out(setup: Setup, run: RunDirectory, past: History | None = None) -> Outcome:
    """Compiles, restores where there is something to restore, and runs to the end."""
    begun, config = time.monotonic(), setup.config
    tracker = make_tracker(config.tracker)
    leave = getattr(setup.scheduler, "close", lambda: None)
    with run.lock(), StopSignals() as stop, EventLog(run.log) as log, ExitStack() as left:
        left.callback(leave)
        recorder = Recorder(
            run,
            log,
            Store(
                run,
                config.checkpoint,
                on_commit=lambda *what: recorder.committed(*what),
                note=tracker.note,
            ),
            tracker,
            setup.total_steps,
            setup.extent.trained,
            config.checkpoint.every_seconds,
            setup.always,
            setup.origin,
            meter_of(config, setup.mesh),
        )
        with recorder.store:
            if past is None:
                open_record(setup, run, log)
            study = Study(setup.scheduler, setup.groups, recorder, judge=setup.judge)
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
            setup.groups.on_open = lambda group: compile_all([group], recorder.compiled)
            recorder.begin(run_info(setup, run, study))
            study.run(plan, lambda: stop.requested)
            return conclude(study, setup, run, begun)


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
        config=to_dict(config),
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
    config, corpus = setup.config, setup.corpus
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


def restore(study: Study, past: History) -> Plan | None:
    """Brings study and scheduler back to the newest trusted checkpoint; the plan to go on with.

    The log gets a `rewind` before anything else, so that what came after counts no more.
    """
    recorder, groups = study.recorder, study.groups
    found = recorder.store.latest(groups.abstract)
    index = -1 if found is None else found.index
    plan, made = replay(study.scheduler, past.plans[: index + 1], past.reports[: index + 1])
    recorder.log.append("rewind", index=index, fsync=True)
    recorder.store.discard_after(index)
    if found is None:
        recorder.meter.resume(past, 0)
        return plan
    for skipped in found.skipped:
        recorder.tracker.note(f"skipped {skipped}")
    for old, report in zip(made, past.reports, strict=False):
        groups.follow(old)
        study.remember(old, report_of(report))
        recorder.remember(old, report_of(report))
    recorder.meter.resume(past, index + 1)
    groups.load(found.state)
    kept = [event for event in past.of("best") if event["index"] <= index]
    study.kept = (kept[-1]["trial"], kept[-1]["step"]) if kept else None
    study.index = index + 1
    return plan


def check_fingerprints(past: History, now: Mapping[str, Any]) -> None:
    """Raises UsageError naming the parts of the data that are not what the run began with."""
    before = past.start["fingerprints"] if past.start else {}
    changed = [name for name, value in now.items() if before.get(name) != value]
    if changed:
        raise UsageError(
            f"{past.path.parent}: {', '.join(changed)} changed since the run began; "
            "resume it where the data is the same, or start a new run"
        )


def _as_resolved(before: Run, config: Run) -> Run:
    """A config that left something to the data or the base means what the run resolved."""
    if isinstance(before, FinetuneRun) and isinstance(config, FinetuneRun):
        return resolved_as(before, config)
    if config.model.vocab_size is not None:
        return config
    return replace(config, model=replace(config.model, vocab_size=before.model.vocab_size))
