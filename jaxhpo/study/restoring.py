"""A run brought back to where its newest trusted checkpoint has it."""

from collections.abc import Mapping
from typing import Any

from jaxhpo.errors import UsageError
from jaxhpo.record.history import History
from jaxhpo.search.plan import Plan
from jaxhpo.study.loop import Study
from jaxhpo.study.replayed import replay, report_of


def restore(study: Study, past: History) -> Plan | None:
    """Brings study and scheduler back to the newest trusted checkpoint; the plan to go on with.

    The log gets a `rewind` before anything else, so that what came after counts no more.
    """
    recorder, groups = study.recorder, study.groups
    found = recorder.store.newest()
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
    groups.load(recorder.store.load(found, groups.abstract(), groups.taken(found.metadata)))
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
