"""A search over a model that the project knows nothing of, and its example."""

import ast
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxhpo
from jaxhpo.errors import UsageError
from jaxhpo.population.function import FunctionTask, Named
from jaxhpo.population.member import train_step
from jaxhpo.record.config import CheckpointConfig, TrackerConfig
from jaxhpo.record.history import history
from jaxhpo.search.config import SearchConfig
from jaxhpo.study.recorder import Recorder
from jaxhpo.study.runs import resume

EXAMPLE = Path(__file__).parents[2] / "experiments" / "own_model" / "gru.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gru", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_example_searches_a_recurrent_network_in_25_lines(example, tmp_path: Path) -> None:
    tree = ast.parse(EXAMPLE.read_text())
    (call,) = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "search"]
    assert call.end_lineno - call.lineno + 1 <= 25
    found = example.search(tmp_path / "run", steps=27, trials=6)
    past = history(found.directory)
    trials = {row["trial"] for plan in past.plans for row in plan["assignments"]}
    assert len(trials) == 6 and len(past.plans[-1]["assignments"]) < 6, "some were let go"
    assert found.best["step"] == 27
    assert found.best["loss"] < np.log(example.LETTERS) - 0.5, "it has learned something"
    assert jaxhpo.write_report(found.directory).exists()
    from safetensors.numpy import load_file

    weights = load_file(found.directory / "best" / "model.safetensors")
    assert set(weights) == {"embed", "gates", "state", "read"}
    params = {name: jnp.asarray(leaf) for name, leaf in weights.items()}
    held_out = example.windows(0, 4, example.TEXT[-500:])
    loss = np.mean([example.loss(params, batch, {}, None) for batch in held_out])
    assert loss == pytest.approx(found.best["loss"], rel=1e-4), "the model saved is the best"


def straight(out: Path, **more: Any) -> Any:
    """A line fitted by gradient descent: rate and decay are searched."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 4, 3)).astype(np.float32)
    data = np.concatenate([x, x @ np.array([[1.0], [-2.0], [0.5]], np.float32)], -1)

    def loss(params, batch, hyperparams, key):
        fit = batch[:, :3] @ params["w"]
        return jnp.mean((fit - batch[:, 3]) ** 2)

    options: dict[str, Any] = {
        "space": {"lr": "log(1e-3, 1e-1)", "decay": "uniform(0, 0.1)"},
        "scheduler": "asha",
        "trials": 8,
        "steps": 18,
        "tracker": TrackerConfig(console="off"),
        "checkpoint": CheckpointConfig(every_seconds=0),
        "search": SearchConfig(min_steps=2),
    }
    return jaxhpo.search_function(
        init=lambda key: {"w": jnp.zeros(3)},
        loss=loss,
        optimizer=lambda h: optax.chain(optax.add_decayed_weights(h["decay"]), optax.sgd(h["lr"])),
        batch_at=lambda step, steps: data[np.arange(step, step + steps) % 60],
        held_out=data[60:],
        out=out,
        **{**options, **more},
    )


class Killed(BaseException):
    """Ends a process in the middle, as far as a test in one process can."""


def test_a_killed_function_search_goes_on_when_it_is_called_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = straight(tmp_path / "whole")
    run, reported = tmp_path / "killed", Recorder.reported

    def dying(self: Recorder, index: int, *args: Any) -> None:
        reported(self, index, *args)
        if index == 2:
            raise Killed

    monkeypatch.setattr(Recorder, "reported", dying)
    with pytest.raises(Killed):
        straight(run)
    monkeypatch.setattr(Recorder, "reported", reported)
    with pytest.raises(UsageError, match="search_function; call it again"):
        resume(run)
    with pytest.raises(UsageError, match="steps was 18, now 20"):
        straight(run, resume="auto", steps=20)
    found = straight(run, resume="auto")
    assert history(run).rewinds == 1
    assert dict(found.best) == dict(whole.best)
    rows = lambda path: [event["results"] for event in history(path).reports]
    assert rows(run) == rows(whole.directory)
    assert straight(run, resume="auto").best == found.best, "a finished search is not run again"


def test_a_shared_study_is_asked_once_and_its_answers_are_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    search = SearchConfig(storage=storage, places=2, segment=9)
    run, reported = tmp_path / "run", Recorder.reported

    def dying(self: Recorder, index: int, *args: Any) -> None:
        reported(self, index, *args)
        if index == 3:
            raise Killed

    monkeypatch.setattr(Recorder, "reported", dying)
    with pytest.raises(Killed):
        straight(run, scheduler="tpe", trials=6, search=search)
    monkeypatch.setattr(Recorder, "reported", reported)
    before = history(run)
    asked = before.of("answer")
    assert asked, "process 0 has asked, and what it heard is in the log"
    first = next(event["seq"] for event in before.events if event["kind"] == "plan")
    assert asked[0]["seq"] < first, "before it acted on it"
    straight(run, resume="auto", scheduler="tpe", trials=6, search=search)
    past = history(run)
    answers = past.of("answer")
    assert len({event["question"] for event in answers}) == len(answers), "nothing is asked twice"
    assert past.rewinds == 1
    born = {r["trial"]: r["point"] for p in past.plans for r in p["assignments"]}
    assert len(born) == 6 and len({tuple(point.items()) for point in born.values()}) == 6


def test_a_choice_of_words_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="kind='a' is no number"):
        straight(tmp_path / "run", space={"lr": "log(1e-3, 1e-1)", "kind": "choice(a, b)"})
    assert not (tmp_path / "run").exists()


def test_a_cool_down_scales_updates_to_zero_as_a_falling_rate_would() -> None:
    task = FunctionTask(
        lambda key: jnp.ones(2),
        lambda params, batch, h, key: jnp.sum(params**2),
        lambda h: optax.adamw(h["lr"], weight_decay=0.1),
    )
    falling = FunctionTask(
        task.initialise,
        task.objective,
        lambda h: optax.adamw(lambda count: h["lr"] * (1 - count / 4), weight_decay=0.1),
    )
    from jaxhpo.population.member import newborn

    plain = Named({"lr": jnp.float32(0.1)})
    cooled = task.cooled(plain, jnp.int32(0), jnp.int32(4))
    seed = np.uint32(0)
    a, b = newborn(task, plain, seed, seed), newborn(falling, plain, seed, seed)
    for _ in range(4):
        key = jax.random.key(0)
        a, metrics = train_step(task, a, cooled, None, key, 1)
        b, _ = train_step(falling, b, plain, None, key, 1)
        np.testing.assert_allclose(a.params, b.params, rtol=1e-6)
    assert metrics["lr"] == pytest.approx(0.025)
