"""This room's slice of the traced hyperparameters."""

from collections.abc import Collection
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np

from jaxhpo.adapters.config import NUMBERS, SWITCHES, TRACED, AdapterConfig
from jaxhpo.errors import UsageError


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class AdapterHyperparams:
    """Numbers of an adapter, f32[] or i32[] each; None means compiled out.

    `rank` is the one at the start, of adalora too. `on` has the switches in use, by projection.
    """

    rank: jax.Array
    alpha: jax.Array
    dropout: jax.Array | None = None
    target_rank: jax.Array | None = None
    one_minus_beta1: jax.Array | None = None
    one_minus_beta2: jax.Array | None = None
    orthogonality: jax.Array | None = None
    tinit: jax.Array | None = None
    tfinal: jax.Array | None = None
    delta_t: jax.Array | None = None
    total_steps: jax.Array | None = None
    threshold_max: jax.Array | None = None
    balance: jax.Array | None = None
    on: dict[str, jax.Array] = field(default_factory=dict)

    def of(self, name: str) -> jax.Array:
        """A number that must be there. Raises ValueError where it was compiled out."""
        if (value := getattr(self, name)) is None:
            raise ValueError(f"{name} was compiled out; `lower` it with the config that is built")
        return value

    def mask(self, width: int) -> jax.Array:
        """Which of `width` directions the rank has, bool[R]."""
        return jnp.arange(width) < self.rank


def present(config: AdapterConfig, searched: Collection[str] = ()) -> frozenset[str]:
    """The optional features that exist on the device: dropout and switches in use or searched.

    Raises UsageError for a searched field that has no effect.
    """
    searched = TRACED & frozenset(searched)
    known = {*NUMBERS[config.kind], *(SWITCHES.values() if config.kind != "none" else ())}
    if idle := sorted(searched - known):
        raise UsageError(
            f"space: adapter.{idle[0]} has no effect with adapter.kind={config.kind}; "
            "search something else"
        )
    switched = {name for name in SWITCHES.values() if name in searched or not getattr(config, name)}
    return frozenset(switched | ({"dropout"} if "dropout" in searched or config.dropout else set()))


def lower(
    config: AdapterConfig,
    which: Collection[str] | None = None,
    *,
    steps: int,
    width: int | None = None,
) -> AdapterHyperparams:
    """The config's numbers, with the features in `which` (default: `present(config)`).

    `steps` is the run's length, `width` the rank that the program's arrays have room for (default:
    the config's own). Raises UsageError for a rank above it and for an AdaLoRA without steps in
    which its budget falls.
    """
    which = present(config) if which is None else frozenset(which)
    width = config.width if width is None else width
    allocates, mixes = config.kind == "adalora", config.kind == "adamole"
    if config.first_rank > width:
        name = "initial_rank" if allocates else "rank"
        raise UsageError(
            f"adapter.{name}={config.first_rank}; allowed: 1 to {width}; give adapter.max_rank the "
            "largest rank of the search"
        )
    if allocates and config.tinit >= steps - config.tfinal:
        raise UsageError(
            f"adapter.tinit={config.tinit} and adapter.tfinal={config.tfinal} leave none of the "
            f"{steps} steps for the budget to fall; allowed: together less than that"
        )
    real = lambda value, there=True: np.float32(value) if there else None
    whole = lambda value, there=True: np.int32(value) if there else None
    return AdapterHyperparams(
        rank=np.int32(config.first_rank),
        alpha=np.float32(config.alpha),
        dropout=real(config.dropout, "dropout" in which),
        target_rank=whole(config.target_rank, allocates),
        one_minus_beta1=real(1.0 - config.beta1, allocates),
        one_minus_beta2=real(1.0 - config.beta2, allocates),
        orthogonality=real(config.orthogonality, allocates),
        tinit=whole(config.tinit, allocates),
        tfinal=whole(config.tfinal, allocates),
        delta_t=whole(config.delta_t, allocates),
        total_steps=whole(steps, allocates),
        threshold_max=real(config.largest_threshold, mixes),
        balance=real(config.balance, mixes),
        on={
            path: np.float32(getattr(config, name))
            for path, name in SWITCHES.items()
            if name in which
        },
    )
