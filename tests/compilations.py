"""What JAX compiles, counted by its own events."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax
from jax.experimental.compilation_cache.compilation_cache import reset_cache


@contextmanager
def counted(fresh: bool = False) -> Iterator[list[str]]:
    """A list that grows by one with every program compiled, with the persistent cache off.

    `fresh`: what was compiled before in this process is forgotten, or it would not be counted.
    """
    events: list[str] = []

    def listen(name: str, *_: object, **__: object) -> None:
        if "backend_compile" in name:
            events.append(name)

    jax.config.update("jax_enable_compilation_cache", False)
    reset_cache()  # JAX looks at the setting once
    if fresh:
        jax.clear_caches()
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield events
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
        jax.config.update("jax_enable_compilation_cache", True)
        reset_cache()
