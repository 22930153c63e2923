"""How the tests count compilations, and what spares them some."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxhpo.population.engine import Engine
from jaxhpo.population.rows import make_rows
from tests.compilations import LOWERED, counted, once
from tests.population.conftest import make_engine
from tests.population.test_toy_quadratic import Quadratic


def test_a_program_is_counted_whether_it_is_compiled_or_read_from_the_cache() -> None:
    program = jax.jit(lambda x: jnp.sin(x) * 3)
    hits: list[str] = []
    listen = lambda name, **_: hits.append(name) if name.endswith("/cache_hits") else None
    program(jnp.ones(3))  # from here on it is in the cache
    jax.monitoring.register_event_listener(listen)
    try:
        with counted(fresh=True) as events:
            program(jnp.ones(3)).block_until_ready()
    finally:
        jax.monitoring.unregister_event_listener(listen)
    assert hits and len(events) >= len(hits)
    with counted() as again:
        program(jnp.ones(3)).block_until_ready()
    assert not again


def test_engines_of_one_task_and_size_share_what_is_lowered(monkeypatch) -> None:
    monkeypatch.setattr(Engine, "lower", once(Engine.lower))
    rows = make_rows({"h": np.zeros((4, 2), np.float32)}, range(4), [1] * 4)
    LOWERED.clear()
    for devices, programs in ((2, 1), (2, 1), (4, 2)):  # another mesh is another program
        engine = make_engine(Quadratic(), devices=devices)
        engine.assemble(engine.empty(rows), rows)
        assert [kind for kind, _ in engine.built] == ["assemble"]
        assert len(LOWERED) == programs
