"""The report of a search: rungs, what early scores foretold, and what mattered."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from jaxhpo.record.history import history
from jaxhpo.report import draw, summarise, trace, write_report
from jaxhpo.report.dimensions import dimensions
from jaxhpo.report.importance import importances, slices
from jaxhpo.report.trials import Curve, comparable, rungs, spearman, trial_curves
from jaxhpo.search.config import SearchConfig
from jaxhpo.search.plan import Result
from jaxhpo.search.space import Space
from jaxhpo.search.table import make
from tests.report import synthetic_run

STEPS, TRIALS = 270, 27
TEXTS = {
    "schedule.peak_lr": "log(1e-4, 1e-1)",
    "dropout.residual": "uniform(0, 0.3)",
    "optimizer.weight_decay": "log(1e-3, 1)",
    "model.num_layers": "choice(1, 2, 4)",
}


def loss_of(point, step: int) -> float:
    """Only the learning rate matters much, depth a little, the rest not at all."""
    away = (math.log10(point["schedule.peak_lr"]) + 2.3) ** 2
    return 2.2 + 0.5 * away + 0.05 * point["model.num_layers"] + 3.0 / math.sqrt(step)


def events(scheduler: str, finish: bool = True, **options):
    """(kind, fields) of a search that a real scheduler carried out on a made-up loss."""
    space = Space.from_mapping(TEXTS, lambda name: name.startswith("model."), list(TEXTS))
    config = SearchConfig(scheduler=scheduler, trials=TRIALS, **{"rank": "loss", **options})
    search = {"scheduler": scheduler, "continued": config.continued}
    start = {"command": "search", "space": TEXTS, "members": TRIALS, "bytes_per_token": 1.0}
    yield "start", {**start, "config": {"steps": STEPS, "search": search}}
    yield "baseline", {"name": "bigram", "loss": 2.9, "bits_per_byte": 2.9 / math.log(2)}
    maker = make(scheduler, config, space, STEPS, 1)
    plan, steps, index, best = maker.first(), {}, 0, (math.inf, 0, 0)
    while plan is not None:
        rows = [
            {"trial": r.trial, "point": dict(r.point), "steps": r.steps, "probe": r.probe,
             "parent": None if r.parent is None else {"trial": r.parent.trial, "step": None},
             "group": r.group}
            for r in plan.assignments
        ]  # fmt: skip
        yield "plan", {"index": index, "assignments": rows}
        report = []
        for row in plan.assignments:
            steps[row.trial] = steps.get(row.trial, 0) + row.steps
            loss = math.nan if row.trial == 5 else loss_of(row.point, steps[row.trial])
            report.append(Result(row.trial, steps[row.trial], loss, loss, (loss,) * 4))
            if steps[row.trial] == STEPS and loss < best[0]:
                best = (loss, row.trial, STEPS)
        results = [
            {"trial": r.trial, "step": r.step, "loss": r.loss, "score": r.score} for r in report
        ]
        yield "report", {"index": index, "results": results, "seconds": 1.0, "tokens": 1000}
        plan, index = maker.next(tuple(report)), index + 1
    if finish:
        found = {"trial": best[1], "step": STEPS, "loss": best[0]}
        yield "finish", {"best": found, "groups": {}, "seconds": float(index), "useful": 1.0}


@pytest.fixture(scope="module")
def asha(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "search-0001"
    return synthetic_run.write(path, events("asha", places=9, min_steps=10))


@pytest.fixture(scope="module")
def two_stage(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "search-0002"
    return synthetic_run.write(path, events("two-stage", proposer="random", continued=4))


def test_a_search_has_its_own_figures_and_none_of_a_populations(asha: Path) -> None:
    page = write_report(asha)
    found = {path.stem for path in page.parent.glob("*.png")}
    assert {"search-curves", "importance", "slices", "contours"} <= found
    assert not {"learning-curves", "hyperparameters", "lineage"} & found
    text = page.read_text()
    assert "PED-ANOVA" in text


def test_rungs_say_how_many_of_how_many_went_on(asha: Path) -> None:
    found = rungs(trial_curves(trace(history(asha))))
    assert [step for step, _, _ in found][:1] == [10]
    assert found[0][1] == TRIALS
    for (_, came, went_on), (_, after, _) in itertools.pairwise(found):
        assert after == went_on <= came


def test_all_trials_are_ranked_those_that_came_furthest_first(asha: Path) -> None:
    past = history(asha)
    members = summarise(past)["members"]
    assert len(members) == TRIALS
    finite = [(row["step"], row["loss"]) for row in members if math.isfinite(row["loss"])]
    assert finite == sorted(finite, key=lambda pair: (-pair[0], pair[1]))
    assert members[-1]["trial"] == 5, "what diverged comes last"
    assert members[0]["trial"] == past.finish["best"]["trial"]


def test_a_lower_loss_that_was_stopped_early_ranks_behind(tmp_path: Path) -> None:
    row = {"point": {"lr": 1.0}, "probe": 0, "parent": None, "group": ""}
    plan = {"index": 0, "assignments": [
        {**row, "trial": 0, "steps": 10}, {**row, "trial": 1, "steps": 20}]}  # fmt: skip
    ends = [(0, 10, 1.0), (1, 20, 2.0)]
    results = [{"trial": t, "step": s, "loss": x, "score": x} for t, s, x in ends]
    start = {"command": "search", "config": {"search": {"scheduler": "asha"}}}
    log = [("start", start), ("plan", plan), ("report", {"index": 0, "results": results})]
    members = summarise(history(synthetic_run.write(tmp_path / "run", log)))["members"]
    assert [member["trial"] for member in members] == [1, 0]


def test_a_rank_correlation_is_that_of_the_reference() -> None:
    early = [0.70, 0.72, 0.68, 0.75, 0.74, 0.66, 0.71, 0.73]
    final = [0.80, 0.83, 0.79, 0.86, 0.84, 0.78, 0.82, 0.81]
    assert spearman(early, final) == pytest.approx(0.9285714286)
    scipy = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.integers(0, 6, 12).tolist(), rng.integers(0, 6, 12).tolist()
        assert spearman(a, b) == pytest.approx(scipy.spearmanr(a, b).statistic, nan_ok=True)
    assert math.isnan(spearman([1.0, 1.0], [1.0, 2.0]))


def test_trials_run_on_by_request_join_the_survivors_in_the_correlation(two_stage: Path) -> None:
    curves = trial_curves(trace(history(two_stage)))
    last = max(curve.steps[-1] for curve in curves)
    assert sum(curve.steps[-1] == last for curve in curves) == 5 + 4
    page = write_report(two_stage)
    assert (page.parent / "rank-correlation.png").exists()
    assert "biased" in page.read_text()


def test_what_matters_is_found_to_matter(asha: Path) -> None:
    past = history(asha)
    lineage = trace(past)
    step, curves = comparable(trial_curves(lineage))
    assert step == 10 and len(curves) == TRIALS - 1, "judged where all can be compared"
    found = importances(curves, step, dimensions(past, lineage))
    assert set(found) == set(TEXTS)
    assert max(found, key=lambda name: found[name]) == "schedule.peak_lr"
    assert importances(curves[:5], step, dimensions(past, lineage)) == {}, "too few to tell"


def test_a_search_that_has_just_begun_gets_a_page(tmp_path: Path) -> None:
    begun = list(events("random", finish=False))[:4]
    run = synthetic_run.write(tmp_path / "run", begun)
    assert "Not finished" in write_report(run).read_text()


def test_a_search_without_a_finite_loss_gets_figures(tmp_path: Path) -> None:
    broken = [
        (kind, fields if kind != "report" else {
            **fields, "results": [{**r, "loss": math.nan, "score": math.nan}
                                  for r in fields["results"]]})
        for kind, fields in events("halving", finish=False, min_steps=10)
    ]  # fmt: skip
    past = history(synthetic_run.write(tmp_path / "run", broken))
    lineage = trace(past)
    assert "search-curves" in draw(past, lineage, summarise(past))


def test_a_score_of_zero_is_a_score():
    curves = [Curve(i, {}, (10,), (0.5,), (score,)) for i, score in enumerate((0.0, -0.0, -0.25))]
    step, compared = comparable(curves)
    assert step == 10 and len(compared) == 3


def test_the_best_of_a_search_by_a_metric_is_marked_at_its_own_score(tmp_path):
    run = synthetic_run.write(tmp_path / "run", events("random"))
    past = history(run)
    lineage, summary = trace(past), summarise(past)
    figure = slices(past, lineage, {**summary, "metric": "accuracy", "best": {
        **summary["best"], "loss": 99.0}})  # fmt: skip
    axis = figure.axes[0]
    leader = next(c for c in trial_curves(lineage) if c.trial == summary["best"]["trial"])
    (marked,) = [line for line in axis.lines if line.get_marker() == "D"]
    assert marked.get_ydata()[0] == leader.scores[-1]
    assert "accuracy" in axis.get_ylabel() and "nats" not in axis.get_ylabel()
