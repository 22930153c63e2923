"""Metrics against direct counts, textbook numbers, and each other."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxhpo.config.finetune import FinetuneRun
from jaxhpo.data.config import DataConfig, ExamplesConfig
from jaxhpo.data.supervised import open_examples
from jaxhpo.data.tokenizers import Bytes
from jaxhpo.study import metrics
from jaxhpo.study.judging import Judge
from jaxhpo.study.tuning import judge_of

LABELS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=30)


def arrays(pairs):
    return np.array([p for p, _ in pairs]), np.array([y for _, y in pairs])


@given(LABELS)
def test_accuracy_and_macro_f1_are_what_counting_gives(pairs) -> None:
    said, truth = arrays(pairs)
    assert metrics.accuracy(said, truth) == sum(p == y for p, y in pairs) / len(pairs)
    scores = []
    for c in range(3):
        hits = sum(p == y == c for p, y in pairs)
        extra, missed = sum(p == c != y for p, y in pairs), sum(y == c != p for p, y in pairs)
        if hits + extra + missed:
            scores.append(2 * hits / (2 * hits + extra + missed))
    assert metrics.f1_macro(said, truth, 3) == pytest.approx(sum(scores) / len(scores))


def test_f1_is_the_harmonic_mean_of_precision_and_recall() -> None:
    truth, said = np.array([1, 1, 1, 0, 0, 0]), np.array([1, 1, 0, 1, 0, 0])
    assert metrics.f1(said, truth) == pytest.approx(2 / 3)
    assert metrics.f1(np.zeros(6), truth) == 0.0
    assert metrics.f1(np.array([1, 1, 1, 1, 1, 1]), truth) == pytest.approx(2 * 0.5 / 1.5)


@given(LABELS)
def test_matthews_is_the_correlation_of_one_hot_columns(pairs) -> None:
    """Gorodkin's definition: covariances summed over the classes."""
    said, truth = arrays(pairs)
    x, y = np.eye(3)[said], np.eye(3)[truth]
    covariance = lambda a, b: float(((a - a.mean(0)) * (b - b.mean(0))).sum())
    below = covariance(x, x) * covariance(y, y)
    expected = covariance(x, y) / math.sqrt(below) if below > 1e-12 else 0.0
    assert metrics.matthews(said, truth, 3) == pytest.approx(expected, abs=1e-9)


def test_matthews_of_two_classes_is_the_usual_formula() -> None:
    said, truth = np.array([1] * 6 + [0] * 2 + [1] + [0] * 3), np.array([1] * 8 + [0] * 4)
    expected = (6 * 3 - 1 * 2) / math.sqrt((6 + 1) * (6 + 2) * (3 + 1) * (3 + 2))
    assert metrics.matthews(said, truth, 2) == pytest.approx(expected)


def test_pearson_is_that_of_numpy_and_nan_for_a_constant() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=50), rng.normal(size=50)
    assert metrics.pearson(x, y) == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert math.isnan(metrics.pearson(np.ones(4), np.arange(4)))


def test_spearman_without_ties_is_the_formula_of_squared_differences() -> None:
    """rho = 1 - 6 sum d^2 / (n (n^2 - 1)); IQ and hours of television, a textbook's example."""
    iq = np.array([86, 97, 99, 100, 101, 103, 106, 110, 112, 113])
    hours = np.array([2, 20, 28, 27, 50, 29, 7, 17, 6, 12])
    assert metrics.spearman(iq, hours) == pytest.approx(-29 / 165)


@given(st.lists(st.integers(0, 4), min_size=2, max_size=6))
def test_tied_values_share_their_mean_rank(values) -> None:
    expected = [sum(w < v for w in values) + (sum(w == v for w in values) + 1) / 2 for v in values]
    np.testing.assert_allclose(metrics._ranks(np.array(values)), expected)


def test_a_prediction_that_is_no_number_makes_every_metric_none() -> None:
    found = metrics.measure("classification", 0.5, np.array([1.0, np.nan]), np.array([1, 0]), 2)
    assert set(found) == {"accuracy", "f1", "f1-macro", "matthews"}
    assert all(math.isnan(value) for value in found.values())


def test_perplexity_is_the_exponential_of_the_loss() -> None:
    assert metrics.measure("instructions", 2.0, None, np.zeros(0), 0) == {
        "perplexity": pytest.approx(math.exp(2.0))
    }


def test_a_search_lowers_what_is_better_high_by_its_negative() -> None:
    assert metrics.cost("loss", 0.5, {}) == 0.5
    assert metrics.cost("accuracy", 0.5, {"accuracy": 0.9}) == -0.9
    assert metrics.cost("perplexity", 2.0, {"perplexity": 7.4}) == 7.4


def test_a_batch_counts_by_its_share_of_the_answers_tokens() -> None:
    shares = np.array([1.5, 0.5])  # three tokens, and one
    judge = Judge(shares=shares)
    found = judge.result(0, 1, np.array([2.0, 6.0]), np.array([1.0, 5.0]))
    assert found.loss == (3 * 2.0 + 6.0) / 4
    assert found.score == (3 * 1.0 + 5.0) / 4 == np.mean(found.samples)


def test_shares_are_the_held_out_batches_tokens(tmp_path) -> None:
    lines = [{"prompt": f"p{i}", "answer": "x" * (30 if i % 2 else 1)} for i in range(32)]
    file = tmp_path / "prompts.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    corpus = open_examples(
        DataConfig(source=str(file), batch_size=1, held_out=0.5),
        ExamplesConfig(), "instructions", 64, 0, Bytes(), 256,
    )  # fmt: skip
    found = judge_of(FinetuneRun(base="b", task="instructions"), corpus).shares
    assert found.mean() == pytest.approx(1.0)
    assert found.max() / found.min() == (30 + 1) / (1 + 1)
