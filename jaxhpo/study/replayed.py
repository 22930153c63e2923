"""Plans and reports as they stand in the log, and a scheduler brought back to where it was."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from jaxhpo.record.log import LogError
from jaxhpo.search.plan import Assignment, Parent, Plan, Report, Result, Scheduler


def plan_of(event: Mapping[str, Any]) -> Plan:
    """A logged plan."""
    rows = tuple(_assignment(row) for row in event["assignments"])
    return Plan(rows, tuple(event.get("paused", ())))


def report_of(event: Mapping[str, Any]) -> Report:
    """A logged report."""
    return tuple(Result(**{**row, "samples": tuple(row["samples"])}) for row in event["results"])


def replay(
    scheduler: Scheduler, plans: Sequence[Mapping[str, Any]], reports: Sequence[Mapping[str, Any]]
) -> tuple[Plan | None, tuple[Plan, ...]]:
    """The scheduler's next plan after the logged reports, and the plans on the way there.

    Every plan on the way must equal the logged one; a difference means that the code or the config
    is another, and raises LogError naming it.
    """
    plan, made = scheduler.first(), []
    for index, (logged, report) in enumerate(zip(plans, reports, strict=False)):
        if plan is None or plan_of(logged) != plan:
            raise LogError(
                f"replaying the log gives another plan {index}: {_first_difference(plan, logged)}; "
                "the run was made by another version or config"
            )
        made.append(plan)
        plan = scheduler.next(report_of(report))
    return plan, tuple(made)


def _assignment(row: Mapping[str, Any]) -> Assignment:
    parent = None if row["parent"] is None else Parent(**row["parent"])
    return Assignment(**{**row, "parent": parent, "keep": tuple(row["keep"])})


def _first_difference(plan: Plan | None, logged: Mapping[str, Any]) -> str:
    if plan is None:
        return "the search has already ended"
    before = plan_of(logged).assignments
    if len(before) != len(plan.assignments):
        return f"{len(before)} rows in the log, {len(plan.assignments)} now"
    for place, (old, new) in enumerate(zip(before, plan.assignments, strict=True)):
        for field in fields(Assignment):
            if getattr(old, field.name) != getattr(new, field.name):
                was, now = getattr(old, field.name), getattr(new, field.name)
                return f"row {place}, {field.name}: {was!r} in the log, {now!r} now"
    return "nothing visible"
