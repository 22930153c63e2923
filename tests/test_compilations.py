"""What the tests count compilations with counts those that the persistent cache answers too."""

import jax
import jax.numpy as jnp

from tests.compilations import counted


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
