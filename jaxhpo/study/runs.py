"""A run from its config to its end, and a run that goes on."""

import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jaxhpo.config import from_dict, refuse_drift, to_dict, to_toml
from jaxhpo.config.run import KINDS, Run
from jaxhpo.errors import UsageError
from jaxhpo.population.cache import use_compilation_cache
from jaxhpo.population.config import prepare_backend
from jaxhpo.record.checkpoints import Store
from jaxhpo.record.directory import CONFIG, RunDirectory
from jaxhpo.record.history import History, history
from jaxhpo.record.log import EventLog
from jaxhpo.record.signals import StopSignals
from jaxhpo.record.trackers.protocol import RunInfo
from jaxhpo.record.trackers.table import make_tracker
from jaxhpo.search.plan import Plan
from jaxhpo.study.loop import Study
from jaxhpo.study.outcome import Outcome, conclude, concluded
from jaxhpo.study.places import Places
from jaxhpo.study.recorder import Recorder
from jaxhpo.study.replayed import replay
from jaxhpo.study.setup import Setup, compile_programs, environment, prepare


def execute(config: Run) -> Outcome:
    """Runs a config to its end in a new run directory, or with `resume = "auto"` carries one on.

    Raises UsageError before anything is written where the config can't run; Interrupted after
    saving, when asked to stop; Diverged when no member is finite.
    """
    if config.resume == "auto" and config.out is not None and (Path(config.out) / CONFIG).exists():
        return resume(Path(config.out), config)
    setup = begin(config)
    run = RunDirectory.create(config.out, prefix=config.command)
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
        before = from_dict(KINDS[past.start["command"]], past.start["config"])
        if config is not None:
            refuse_drift(before, _with_vocabulary_of(before, config))
        if (outcome := concluded(run)) is not None:
            return outcome
        setup = begin(before if config is None else config)
        check_fingerprints(past, setup.corpus.fingerprints)
        return carry_out(setup, run, past)


def begin(config: Run) -> Setup:
    """Everything that can be refused, before anything is compiled or written."""
    prepare_backend(config.execution, config.members)
    use_compilation_cache(config.execution)
    return prepare(config)


def carry_out(setup: Setup, run: RunDirectory, past: History | None = None) -> Outcome:
    """Compiles, restores where there is something to restore, and runs to the end."""
    begun, config = time.monotonic(), setup.config
    tracker = make_tracker(config.tracker)
    with run.lock(), StopSignals() as stop, EventLog(run.log) as log:
        recorder = Recorder(
            log,
            Store(
                run,
                config.checkpoint,
                on_commit=lambda *what: recorder.committed(*what),
                note=tracker.note,
            ),
            tracker,
            config.steps,
            setup.tokens_per_step,
            config.checkpoint.every_seconds,
        )
        with recorder.store:
            if past is None:
                open_record(setup, run, log)
            study = Study(
                engine=setup.engine,
                scheduler=setup.scheduler,
                lower=setup.lower,
                batch_at=setup.corpus.train.batch_at,
                held_out=setup.engine.stage(setup.corpus.held_out, axis=1),
                segment=setup.extent.steps,
                probe=setup.extent.probe,
                recorder=recorder,
            )
            first = setup.scheduler.first()
            # the rewind comes before any other event: the log may end in a torn line
            plan = first if past is None else restore(study, setup, past, first)
            tracker.note(f"{run.path}: compiling")
            compile_programs(setup, first, recorder.compiled)
            step = max(study.places.steps, default=0)
            recorder.begin(
                RunInfo(run.name, run.path, config.steps, config.members, to_dict(config), step)
            )
            study.run(plan, lambda: stop.requested)
            return conclude(study, setup, run, begun)


def open_record(setup: Setup, run: RunDirectory, log: EventLog) -> None:
    """The first lines of a log: what runs, on what, and the baseline to beat."""
    config, corpus = setup.config, setup.corpus
    run.write_text(CONFIG, to_toml(config))
    log.append(
        "start",
        version=version("jaxhpo"),
        command=config.command,
        config=to_dict(config),
        space=dict(config.space),
        fingerprints=dict(corpus.fingerprints),
        environment=environment(),
        members=config.members,
        parameters=parameters(config),
        bytes_per_token=corpus.bytes_per_token,
        tokens_per_step=setup.tokens_per_step,
        fsync=True,
    )
    loss = corpus.bigram_loss()
    log.append("baseline", name="bigram", loss=loss, bits_per_byte=corpus.bits_per_byte(loss))


def restore(study: Study, setup: Setup, past: History, first: Plan) -> Plan | None:
    """Brings study and scheduler back to the newest trusted checkpoint; the plan to go on with.

    The log gets a `rewind` before anything else, so that what came after counts no more.
    """
    recorder = study.recorder
    host_rows, _ = Places().rows(first, setup.lower)
    found = recorder.store.latest(setup.engine.abstract(host_rows))
    index = -1 if found is None else found.index
    plan, places = replay(setup.scheduler, past.plans[: index + 1], past.reports[: index + 1])
    recorder.log.append("rewind", index=index, fsync=True)
    recorder.store.discard_after(index)
    if found is None:
        return plan
    for skipped in found.skipped:
        recorder.tracker.note(f"skipped {skipped}")
    study.population, study.places, study.index = found.state, places, index + 1
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


def parameters(config: Run) -> int:
    from jaxhpo.nn import count_parameters

    return count_parameters(config.model)


def _with_vocabulary_of(before: Run, config: Run) -> Run:
    """A config that left the vocabulary to the tokenizer means the one that the run resolved."""
    from dataclasses import replace

    if config.model.vocab_size is not None:
        return config
    return replace(config, model=replace(config.model, vocab_size=before.model.vocab_size))
