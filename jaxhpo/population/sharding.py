"""How one member's arrays are split over the devices that share it: rules by path, no jax."""

import functools
import math
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from jaxhpo.errors import UsageError
from jaxhpo.nn.config import ModelConfig
from jaxhpo.population.config import Axes

FSDP, TENSOR = "fsdp", "tensor"

Entry = str | tuple[str, ...] | None
Spec = tuple[Entry, ...]
"""What each dimension of an array is split over."""

_COLUMN = r"(attention/(query|key|value)|mlp/(up|gate))"
"""Projections whose outputs are split over `tensor`: heads, and the width of the MLP."""

_ROW = r"(attention/out|mlp/down)"
"""Projections whose inputs are, and whose outputs are summed over `tensor`."""

RULES: tuple[tuple[str, Spec], ...] = (
    (r"embed/embedding", ((TENSOR, FSDP), FSDP)),
    (r"(positions|token_types)/embedding", (FSDP, None)),
    (r"readout", (FSDP, TENSOR)),
    (r"readout_bias", (TENSOR,)),
    (r"readout_dense/kernel", (FSDP, None)),
    (r"readout_dense/bias", ()),
    (r"(blocks/)?([a-z]+/)?[a-z]+_norm/(scale|bias)", ()),
    (rf"blocks/{_COLUMN}/kernel", (FSDP, TENSOR)),
    (rf"blocks/{_COLUMN}/bias", (TENSOR,)),
    (rf"blocks/{_ROW}/kernel", (TENSOR, FSDP)),
    (rf"blocks/{_ROW}/bias", ()),
    (rf"blocks/{_COLUMN}/lora_a", (FSDP, None)),
    (rf"blocks/{_COLUMN}/lora_b", (None, TENSOR)),
    (rf"blocks/{_COLUMN}/magnitude", (TENSOR,)),
    (rf"blocks/{_ROW}/lora_a", (TENSOR, None)),
    (rf"blocks/{_ROW}/lora_b", (None, FSDP)),
    (rf"blocks/{_ROW}/magnitude", ()),
    (rf"blocks/({_COLUMN}|{_ROW})/(lora_e|gate|threshold|threshold_bias)", ()),
    (rf"scales/{_COLUMN}", (TENSOR,)),
    (rf"scales/{_ROW}", ()),
    (r"head/kernel", (FSDP, None)),
    (r"head/bias", ()),
)
"""Whole path of an array of model, adapter, base or head -> the split of its last dimensions.

A dimension that an axis does not divide stays whole; an axis that is named twice splits the first
dimension that it divides: the table of tokens by rows, or by columns where the vocabulary is odd.
It is gathered before the lookup: XLA's partitioner was seen to abort on columns.
"""


def spec_of(name: str, shape: tuple[int, ...], axes: Axes) -> Spec:
    """The split of an array of one member. Raises UsageError where not exactly one rule fits.

    >>> spec_of("blocks/mlp/up/kernel", (2, 64, 256), Axes(fsdp=2, tensor=4))
    (None, 'fsdp', 'tensor')
    """
    if axes.fsdp * axes.tensor == 1:
        return (None,) * len(shape)
    rule = rule_of(name)
    found: list[Entry] = []
    for side, entry in zip(shape, (None,) * (len(shape) - len(rule)) + rule, strict=True):
        found.append(fitting(side, entry, axes, used=_names(found)))
    return tuple(found)


@functools.lru_cache(maxsize=4096)
def rule_of(name: str) -> Spec:
    """The split that the rules give the last dimensions of an array."""
    found = [split for pattern, split in RULES if re.fullmatch(pattern, name)]
    if len(found) != 1:
        raise UsageError(
            f"{len(found)} rules say how {name} is split over fsdp and tensor; one is due: "
            "execution.mesh may have member and data alone here"
        )
    return found[0]


def fitting(size: int, entry: Entry, axes: Axes, used: Collection[str] = ()) -> Entry:
    """The part of a dimension's split that divides it: the first axes of it, or the last alone;
    of those that are not `used`."""
    wanted = (axis for axis in _names([entry]) if axis not in used)
    wanted = tuple(axis for axis in wanted if getattr(axes, axis) > 1)
    for some in (*(wanted[:count] for count in range(len(wanted), 0, -1)), wanted[-1:]):
        if some and size % math.prod(getattr(axes, axis) for axis in some) == 0:
            return some[0] if len(some) == 1 else some
    return None


def parts(entry: Entry, axes: Axes) -> int:
    """Into how many parts a dimension is split."""
    return math.prod(getattr(axes, axis) for axis in _names([entry]))


def _names(entries: Iterable[Entry]) -> list[str]:
    """The axes in the split of some dimensions."""
    each = ((e,) if isinstance(e, str) else e or () for e in entries)
    return [name for names in each for name in names]


def held_shapes(shapes: Mapping[str, tuple[int, ...]], axes: Axes) -> dict[str, tuple[int, ...]]:
    """Of arrays by path, the shapes of the parts that one device holds."""
    split = lambda name, shape: zip(shape, spec_of(name, shape, axes), strict=True)
    return {
        name: tuple(side // parts(entry, axes) for side, entry in split(name, shape))
        for name, shape in shapes.items()
    }


def state_spec(path: str, shape: tuple[int, ...], params: Mapping[str, tuple[Any, Spec]]) -> Spec:
    """The split of an array that an optimizer keeps: a moment has that of its parameter.

    `params` are shapes and splits by path. What has no parameter's shape, such as a counter or a
    factored moment, is whole on every device: it is small.
    """
    parts = path.split("/")
    for at in range(len(parts)):
        name = "/".join(parts[at:])
        for known in (name, f"blocks/{name}"):
            if known in params and params[known][0] == shape:
                return params[known][1]
    return (None,) * len(shape)


def check_function(axes: Axes) -> None:
    """Raises UsageError where a mesh splits the parameters of a function of the user's own."""
    if axes.fsdp * axes.tensor > 1:
        raise UsageError(
            f"execution.mesh={axes}: nothing says how a function's own parameters are split; "
            "allowed: member and data"
        )


def check_mesh(model: ModelConfig, batch_size: int, accumulate: int, axes: Axes) -> None:
    """Raises UsageError where a mesh splits what can't be split: a head, or a sequence."""
    micro = accumulate * axes.batch
    if batch_size % micro:
        raise UsageError(
            f"data.batch_size={batch_size} is not a multiple of {micro}: "
            f"execution.accumulate={accumulate} times data={axes.data} and fsdp={axes.fsdp} of "
            f"execution.mesh; allowed: {-(-batch_size // micro) * micro}, or a smaller mesh"
        )
    for name, size in (("num_heads", model.num_heads), ("mlp_width", model.mlp_width)):
        if size % axes.tensor:
            allowed = [n for n in range(1, size + 1) if size % n == 0 and n <= 64]
            raise UsageError(
                f"execution.mesh: tensor={axes.tensor} does not divide model.{name}={size}; "
                f"allowed: {', '.join(map(str, allowed))}"
            )
