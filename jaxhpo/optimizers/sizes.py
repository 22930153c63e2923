"""How much an optimizer keeps, by a closed formula."""

import math
from collections.abc import Collection, Mapping

from jaxhpo.optimizers.config import OptimizerConfig
from jaxhpo.optimizers.masks import is_matrix, is_stacked

COUNT = 4
"""Bytes of a counter of steps."""


def state_bytes(
    config: OptimizerConfig,
    shapes: Mapping[str, tuple[int, ...]],
    which: Collection[str],
    held: Mapping[str, tuple[int, ...]] | None = None,
) -> int:
    """Bytes of the state for parameters of these shapes by path; `which` numbers are `present`.

    `held` are the shapes of the parts of them on one device: moments are split like parameters,
    factored ones are whole.
    """
    held = shapes if held is None else held
    moment = 2 if config.moment_dtype == "bfloat16" else 4
    sizes = {name: math.prod(shape) for name, shape in held.items()}
    total = sum(sizes.values())
    if config.kind == "sgd":
        return moment * total if "momentum" in which else 0
    if config.kind == "lion":
        return COUNT + moment * total
    if config.kind == "muon":
        matrices = sum(size for name, size in sizes.items() if is_matrix(name))
        coefficients = 3 * 4  # of its iteration, which optax keeps in the state
        muon = COUNT + coefficients + moment * matrices
        return muon + COUNT + (moment + 4) * (total - matrices)
    if config.kind == "adafactor":
        counts = COUNT + _layers(shapes) * COUNT
        return counts + sum(_factored(config, name, shapes[name], held[name]) for name in shapes)
    return COUNT + (moment + 4) * total


def _layers(shapes: Mapping[str, tuple[int, ...]]) -> int:
    return next((shape[0] for name, shape in shapes.items() if is_stacked(name)), 0)


def _factored(
    config: OptimizerConfig, name: str, shape: tuple[int, ...], held: tuple[int, ...]
) -> int:
    """Bytes of one parameter's second moment: rows and columns, or all of it; what is not used
    holds one number."""
    layers, own = (shape[0], shape[1:]) if is_stacked(name) else (1, shape)
    largest = sorted(own)[-2:]
    if len(own) < 2 or largest[0] < config.adafactor_min_dim:
        return 4 * (math.prod(held) + 2 * layers)
    rows, columns = (math.prod(own) // side for side in largest)
    return 4 * layers * (rows + columns + 1)
