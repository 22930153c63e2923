"""What JAX compiles, counted by its own events; and engines' programs traced once a process."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax

from jaxhpo.population.engine import Engine


@contextmanager
def counted(fresh: bool = False) -> Iterator[list[str]]:
    """A list that grows by one with every program compiled, the persistent cache's included.

    JAX's event is of asking for an executable, whether it is compiled or read from a file
    (tests/test_compilations.py). `fresh`: what was compiled before in this process is forgotten,
    or it would not be counted.
    """
    events: list[str] = []

    def listen(name: str, *_: object, **__: object) -> None:
        if "backend_compile" in name:
            events.append(name)

    LOWERED.clear()
    if fresh:
        jax.clear_caches()
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield events
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


LOWERED: dict[Any, jax.stages.Lowered] = {}

OWN = ("members", "built", "_programs", "run_seed", "shared", "placement", "_kinds")
"""What engines of one program differ in; `shared` is an argument, the placement is the mesh's."""


def once(lower: Callable) -> Callable:
    """`Engine.lower` that lowers one program once: runs of one config in a process share it.

    Tracing is most of a short run's time where its executables come from the persistent cache.
    """

    @functools.wraps(lower)
    def found(engine: Engine, kind: str, *args: Any) -> jax.stages.Lowered:
        leaves, structure = jax.tree.flatten((args, engine.shared))
        shapes = tuple((leaf.shape, leaf.dtype, leaf.sharding) for leaf in leaves)
        fixed = tuple(item for item in vars(engine).items() if item[0] not in OWN)
        key = kind, structure, shapes, fixed
        try:
            hash(key)
        except TypeError:  # a task with arrays in it
            return lower(engine, kind, *args)
        if key not in LOWERED:
            LOWERED[key] = lower(engine, kind, *args)
        return LOWERED[key]

    return found
