"""What a finished run found: the best model, its schedule, a sample, the last log line."""

import json
import math
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxhpo.population.decoding import sample
from jaxhpo.record.directory import RunDirectory
from jaxhpo.record.history import History, history
from jaxhpo.record.trackers.protocol import Summary, TrialResult
from jaxhpo.search.plan import Result
from jaxhpo.search.replay import lineage_points
from jaxhpo.study import exports
from jaxhpo.study.hosts import PREPARING
from jaxhpo.study.incumbent import finalists
from jaxhpo.study.loop import Study
from jaxhpo.study.recorder import BEST
from jaxhpo.study.replayed import plan_of, report_of
from jaxhpo.study.saved import as_safetensors, from_safetensors
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
    first: bool = True
    """whether this process writes what the run leaves, the report too"""

    @property
    def report(self) -> Path:
        """The report page."""
        return self.directory / "report" / "index.html"


def conclude(study: Study, setup: Setup, run: RunDirectory, begun: float) -> Outcome:
    """Writes the best model, the schedule discovered, a sample and `finish`.

    Of several processes all give what they hold of the best model, and the first writes.
    """
    best = study.judge.best_of(study.results, setup.origin is not None)
    group = study.groups.holding(best.trial)
    params = None if group is None else group.params_of(best.trial)

    def write() -> list[Any]:
        outcome = write_up(study, setup, run, begun, best, params)
        return [outcome.best, outcome.groups, outcome.seconds]

    found = study.hosts.from_first(write, "the outcome", PREPARING)
    return Outcome(run.path, *found, first=study.hosts.first)


def write_up(
    study: Study, setup: Setup, run: RunDirectory, begun: float, best: Result, params: Any
) -> Outcome:
    """Everything that a finished run leaves; `params` None: from where they were saved."""
    past = history(run.path)
    pairs = [
        (plan_of(plan), report_of(report))
        for plan, report in zip(past.plans, past.reports, strict=True)
    ]
    everyone = setup.origin is not None
    rows = lineage_points(pairs, best.trial)
    if setup.origin is not None:
        rows = (*setup.origin.points_before(best.trial), *rows)
    document = [{"step": step, "point": dict(point)} for step, point in rows]
    run.write_text("schedule.json", json.dumps(document, indent=1) + "\n")
    params = saved_params(study, past, best) if params is None else params
    run.write_bytes(BEST, as_safetensors(params))
    found: dict[str, Any] = {"trial": best.trial, "step": best.step, "loss": best.loss}
    if best.metrics:
        found["metrics"] = dict(best.metrics)
    if setup.tuning is not None:
        write_adapter(study, setup, run, best.trial, params)
    elif setup.corpus is not None:
        write_sample(study, setup, best.trial, params)
    if setup.corpus is not None:
        found["bits_per_byte"] = setup.corpus.bits_per_byte(best.loss)
    groups = by_group(study.results, everyone or study.judge.everyone)
    made = [row.steps for plan, _ in pairs for row in plan.assignments]
    probed = [row.probe for plan, _ in pairs for row in plan.assignments]
    idle = sum(event.get("idle_steps", 0) for event in past.reports)
    seconds = sum(event["seconds"] for event in past.reports)
    wall = time.monotonic() - begun
    study.recorder.log.append(
        "finish",
        best=found,
        groups=groups,
        seconds=seconds,
        wall_seconds=wall,
        member_steps=sum(made),
        probe_steps=sum(probed),
        idle_steps=idle,
        useful=sum(made) / (sum(made) + sum(probed) + idle),
        goodput=(goodput := study.recorder.meter.goodput()),
        fsync=True,
    )
    study.recorder.tracker.finish(
        Summary(
            best=TrialResult(best.trial, best.step, best.loss, best.score),
            seconds=wall,
            details={} if goodput is None else {"goodput": goodput},
        )
    )
    return Outcome(run.path, found, groups, seconds)


def concluded(past: History) -> Outcome | None:
    """The outcome of a run whose log says that it has finished; else None."""
    finish = past.finish
    if finish is None:
        return None
    return Outcome(past.path.parent, finish["best"], finish["groups"], finish["seconds"])


def by_group(
    results: Mapping[int, tuple[Result, str]], everyone: bool = False
) -> dict[str, dict[str, float]]:
    """Best and median held-out loss of each group's trials that came furthest, or of `everyone`.

    A diverged trial counts as infinite.
    """
    groups: dict[str, list[float]] = {}
    for result, group in finalists(results, everyone).values():
        loss = result.loss if math.isfinite(result.loss) else math.inf
        groups.setdefault(group or "trial", []).append(loss)
    return {
        name: {"best": min(losses), "median": statistics.median(losses)}
        for name, losses in groups.items()
    }


def saved_params(study: Study, past: History, best: Result) -> Any:
    """The best trial's parameters as host arrays, as they were saved when it lost its place."""
    event = next(e for e in reversed(past.of("best")) if e["trial"] == best.trial)
    home = study.groups.of(study.recorder.points[best.trial])
    if home is None:
        raise LookupError(f"trial {best.trial} was never trained")
    like = home.abstract(home.engines[-1].size).params
    return from_safetensors(study.recorder.run.path / BEST, event["digest"], like)


def write_adapter(study: Study, setup: Setup, run: RunDirectory, trial: int, params: Any) -> None:
    """The best trial's adapter as a folder, where there is one; with all weights trained the file
    of the best model is all."""
    point = study.recorder.points[trial]
    config = setup.opening.config_of(study.groups.statics(point))
    if config.adapter.kind != "none":
        family = None if setup.tuning is None else setup.tuning.base.family
        exports.write_adapter(run.path / exports.ADAPTER, config, family, params, point)


def write_sample(study: Study, setup: Setup, trial: int, params: Any) -> None:
    """A sample of text from one trial, prompted with the start of the held-out part."""
    corpus = setup.corpus
    decode = corpus.tokenizer.decode
    statics = study.groups.statics(study.recorder.points[trial])
    model = setup.opening.config_of(statics).model
    start = corpus.prompt(model.context)
    tokens = sample(model, params, start, SAMPLE_TOKENS, TEMPERATURE, setup.config.seed)
    study.recorder.log.append(
        "sample",
        trial=trial,
        prompt=decode(start),
        text=decode(corpus.ended(tokens)),
        temperature=TEMPERATURE,
    )
