"""What a finished run found: the best model, its schedule, a sample, the last log line."""

import json
import math
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxhpo.population.decoding import sample
from jaxhpo.record.directory import RunDirectory
from jaxhpo.record.history import history
from jaxhpo.record.trackers.protocol import Summary, TrialResult
from jaxhpo.search.plan import Plan, Report, Result
from jaxhpo.search.replay import lineage_points
from jaxhpo.study.loop import Study
from jaxhpo.study.replayed import plan_of, report_of
from jaxhpo.study.setup import Setup

SAMPLE_TOKENS = 400
TEMPERATURE = 0.8


@dataclass(frozen=True)
class Outcome:
    """A finished run: where it is, its best trial, and what each group came to (nats per token)."""

    directory: Path
    best: Mapping[str, Any]
    groups: Mapping[str, Mapping[str, float]]
    seconds: float

    @property
    def report(self) -> Path:
        """The report page."""
        return self.directory / "report" / "index.html"


def conclude(study: Study, setup: Setup, run: RunDirectory, begun: float) -> Outcome:
    """Writes the best model, the schedule discovered, a sample and `finish`."""
    past = history(run.path)
    pairs = [
        (plan_of(plan), report_of(report))
        for plan, report in zip(past.plans, past.reports, strict=True)
    ]
    plan, report = pairs[-1]
    best = best_of(plan, report)
    rows = lineage_points(pairs, best.trial)
    document = [{"step": step, "point": dict(point)} for step, point in rows]
    run.write_text("schedule.json", json.dumps(document, indent=1) + "\n")
    params = member_params(study, best.trial)
    run.write_bytes("best/model.safetensors", as_safetensors(params))
    write_sample(study, setup, best.trial, params)
    nats = math.log(2) * setup.corpus.bytes_per_token
    found = {
        "trial": best.trial,
        "step": best.step,
        "loss": best.loss,
        "bits_per_byte": best.loss / nats,
    }
    groups = by_group(plan, report)
    made = [row.steps for plan, _ in pairs for row in plan.assignments]
    probed = [row.probe for plan, _ in pairs for row in plan.assignments]
    seconds = sum(event["seconds"] for event in past.reports)
    study.recorder.log.append(
        "finish",
        best=found,
        groups=groups,
        seconds=seconds,
        wall_seconds=time.monotonic() - begun,
        member_steps=sum(made),
        probe_steps=sum(probed),
        useful=sum(made) / (sum(made) + sum(probed)),
        fsync=True,
    )
    study.recorder.tracker.finish(
        Summary(best=TrialResult(best.trial, best.step, best.loss, best.score), seconds=seconds)
    )
    return Outcome(run.path, found, groups, seconds)


def concluded(run: RunDirectory) -> Outcome | None:
    """The outcome of a run whose log says that it has finished; else None."""
    finish = history(run.path).finish
    if finish is None:
        return None
    return Outcome(run.path, finish["best"], finish["groups"], finish["seconds"])


def best_of(plan: Plan, report: Report) -> Result:
    """The lowest finite loss among the trials searched, or among all where nothing is searched."""
    groups = {row.trial: row.group for row in plan.assignments}
    searched = [r for r in report if groups[r.trial] != "fixed"] or list(report)
    return min(searched, key=lambda r: (not math.isfinite(r.loss), r.loss, r.trial))


def by_group(plan: Plan, report: Report) -> dict[str, dict[str, float]]:
    """Best and median held-out loss of each group; a diverged trial counts as infinite."""
    groups: dict[str, list[float]] = {}
    for row, result in zip(plan.assignments, report, strict=True):
        loss = result.loss if math.isfinite(result.loss) else math.inf
        groups.setdefault(row.group or "trial", []).append(loss)
    return {
        name: {"best": min(losses), "median": statistics.median(losses)}
        for name, losses in groups.items()
    }


def member_params(study: Study, trial: int) -> Any:
    """One trial's parameters as host arrays."""
    if study.population is None:
        raise LookupError("nothing has been trained yet")
    place = study.places.trials.index(trial)
    return jax.tree.map(lambda x: np.asarray(x)[place], study.population.params)


def as_safetensors(params: Any) -> bytes:
    """Parameters as a safetensors file; names are paths, such as `blocks.mlp.up.kernel`."""
    from safetensors.numpy import save

    leaves = jax.tree_util.tree_leaves_with_path(params)
    name = lambda path: jax.tree_util.keystr(path, simple=True, separator=".")
    return save({name(path): np.ascontiguousarray(leaf) for path, leaf in leaves})


def write_sample(study: Study, setup: Setup, trial: int, params: Any) -> None:
    """A sample of text from one trial, prompted with the start of the held-out part."""
    tokenizer, model = setup.corpus.tokenizer, setup.config.model
    start = jax.tree.leaves(setup.corpus.held_out)[0][0, 0, : max(model.context // 2, 1)]
    tokens = sample(model, params, start, SAMPLE_TOKENS, TEMPERATURE, setup.config.seed)
    study.recorder.log.append(
        "sample",
        trial=trial,
        prompt=tokenizer.decode(start),
        text=tokenizer.decode(tokens),
        temperature=TEMPERATURE,
    )
