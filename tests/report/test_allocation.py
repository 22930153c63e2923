"""The figure of what an adapter used, and the metrics of a fine-tuned run on its page."""

from jaxhpo.record.history import history
from jaxhpo.report import trace
from jaxhpo.report.allocation import allocation
from jaxhpo.report.figures import draw
from jaxhpo.report.sections import header
from jaxhpo.report.summary import summarise
from tests.report import synthetic_run


def with_ranks(fields: dict) -> dict:
    """A report whose trials all logged the rank of two layers at two steps."""
    rare = {"step": [0, 25], "rank/attention/query/0": [4, 3], "rank/attention/query/1": [4, 1]}
    return {**fields, "diagnostics": {str(r["trial"]): rare for r in fields["results"]}}


def test_the_rank_of_every_matrix_is_drawn_over_steps(tmp_path) -> None:
    events = [
        (kind, with_ranks(fields) if kind == "report" else fields)
        for kind, fields in synthetic_run.events(members=4, fixed=0, rounds=3)
    ]
    past = history(synthetic_run.write(tmp_path / "run", events))
    lineage, summary = trace(past), summarise(past)
    figure = allocation(past, lineage, summary)
    (axis, _) = figure.axes
    assert [label.get_text() for label in axis.get_yticklabels()] == [
        "attention/query/0",
        "attention/query/1",
    ]
    values = axis.collections[0].get_array()
    assert values.shape[0] == 2 and set(values[1].ravel().tolist()) == {4.0, 1.0}
    assert "allocation" in draw(past, lineage, summary)


def test_a_run_without_adapters_has_no_such_figure(pbt_history, pbt_lineage) -> None:
    assert allocation(pbt_history, pbt_lineage, summarise(pbt_history)) is None


def test_metrics_stand_on_the_page_with_their_names(tmp_path) -> None:
    events = []
    for kind, fields in synthetic_run.events(members=4, fixed=0, rounds=3):
        if kind == "start":
            config = {**fields["config"], "task": "classification", "metric": "accuracy"}
            fields = {**fields, "config": config}
        if kind == "report":
            rows = [{**r, "metrics": {"accuracy": 0.875, "f1": 0.5}} for r in fields["results"]]
            fields = {**fields, "results": rows}
        events.append((kind, fields))
    past = history(synthetic_run.write(tmp_path / "run", events))
    summary = summarise(past)
    assert summary["best"]["metrics"] == {"accuracy": 0.875, "f1": 0.5}
    assert (summary["unit"], summary["metric"]) == ("nats per example", "accuracy")
    page = str(header("run", past, summary))
    assert "accuracy 0.8750" in page and "nats per example" in page
    assert "nats per token" not in page
