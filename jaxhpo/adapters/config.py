"""Which adapter (static) and its numbers (traced)."""

import math
import re
from dataclasses import dataclass
from typing import Literal, NoReturn, get_args

from jaxhpo.errors import UsageError

PROJECTIONS = (
    "attention/query",
    "attention/key",
    "attention/value",
    "attention/out",
    "mlp/up",
    "mlp/gate",
    "mlp/down",
)
"""The projections of a block by path; a model without a gate lacks one."""

SWITCHES = {path: f"on_{path.rpartition('/')[2]}" for path in PROJECTIONS}
"""Projection -> the field that switches its adapter on or off."""

NUMBERS = {
    "none": (),
    "lora": ("rank", "alpha", "dropout"),
    "dora": ("rank", "alpha", "dropout"),
    "adalora": (
        "alpha", "dropout", "initial_rank", "target_rank", "beta1", "beta2", "orthogonality",
        "tinit", "tfinal", "delta_t",
    ),
    "adamole": ("rank", "alpha", "dropout", "threshold_max", "balance"),
}  # fmt: skip
"""Numbers that each kind has, beside its switches."""

TRACED = frozenset({name for names in NUMBERS.values() for name in names} | {*SWITCHES.values()})
"""Fields that may change without a new program."""

Kind = Literal["none", "lora", "dora", "adalora", "adamole"]
Init = Literal["kaiming", "gaussian"]
BaseDtype = Literal["float32", "bfloat16", "int8"]


@dataclass(frozen=True)
class AdapterConfig:
    """The adapter and its hyperparameters, with PEFT's defaults. A number that the kind lacks has
    no effect."""

    kind: Kind = "none"
    """LoRA, DoRA, AdaLoRA or AdaMoLE; none trains all weights"""
    max_rank: int | None = None
    """rank that the arrays have room for (default: the rank; of adalora the initial rank)"""
    targets: tuple[str, ...] = ("attention/query", "attention/value")
    """patterns of the projections that have an adapter: attention/query, key, value, out; mlp/up,
    gate, down"""
    init: Init = "kaiming"
    """of A: uniform within 1 / sqrt(inputs), or normal with 1 / rank; B starts at zero"""
    rslora: bool = False
    """scale by alpha / sqrt(rank) in place of alpha / rank (lora, dora)"""
    experts: int = 4
    """of adamole, each of the given rank"""
    base_dtype: BaseDtype = "float32"
    """how the frozen base is stored; int8 has one scale for each output of a projection"""
    rank: int = 8
    """of lora and dora, and of each of adamole's experts; a copy may lower it, not raise it"""
    alpha: float = 8.0
    """numerator of the scale"""
    dropout: float = 0.0
    """share of the adapter's inputs that is zeroed in training"""
    initial_rank: int = 12
    """of every matrix of adalora at the start"""
    target_rank: int = 8
    """of adalora's matrices at the end, on average"""
    beta1: float = 0.85
    """decay of adalora's sensitivity"""
    beta2: float = 0.85
    """decay of adalora's uncertainty"""
    orthogonality: float = 0.5
    """weight of adalora's orthogonality term"""
    tinit: int = 0
    """steps of adalora before the budget falls"""
    tfinal: int = 0
    """steps of adalora at the end with ranks as they are"""
    delta_t: int = 1
    """steps of adalora from one allocation to the next"""
    threshold_max: float | None = None
    """largest threshold of adamole's gate (default: 1 / experts, with which one is always used)"""
    balance: float = 1e-3
    """weight of adamole's balance term, summed over layers"""
    on_query: int = 1
    """whether the query's adapter, if it is a target, acts (1) or not (0); so with all below"""
    on_key: int = 1
    """of the key projection"""
    on_value: int = 1
    """of the value projection"""
    on_out: int = 1
    """of the attention's output projection"""
    on_up: int = 1
    """of the feed-forward layer's input"""
    on_gate: int = 1
    """of its gate"""
    on_down: int = 1
    """of its output"""

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                _refuse(name, getattr(self, name), ", ".join(allowed))
        for name in ("experts", "rank", "initial_rank", "target_rank", "delta_t"):
            if getattr(self, name) < 1:
                _refuse(name, getattr(self, name), "1 or more")
        for name in ("tinit", "tfinal"):
            if getattr(self, name) < 0:
                _refuse(name, getattr(self, name), "0 or more")
        if not 0 <= self.dropout < 1:
            _refuse("dropout", self.dropout, "0 <= p < 1")
        for name in ("beta1", "beta2"):
            if not 0 < getattr(self, name) < 1:
                _refuse(name, getattr(self, name), f"0 < {name} < 1")
        for name in ("alpha", "orthogonality", "balance"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                _refuse(name, getattr(self, name), "a finite number, 0 or more")
        if self.threshold_max is not None and not 0 < self.threshold_max <= 1:
            _refuse("threshold_max", self.threshold_max, "above 0, up to 1")
        for name in SWITCHES.values():
            if getattr(self, name) not in (0, 1):
                _refuse(name, getattr(self, name), "0 or 1")
        self._check_ranks()
        self._check_targets()

    def _check_ranks(self) -> None:
        """A trial's rank is checked against the arrays where both are known: see `lower`."""
        if self.max_rank is not None and not 1 <= self.first_rank <= self.max_rank:
            name = "initial_rank" if self.kind == "adalora" else "rank"
            _refuse(name, self.first_rank, f"1 to adapter.max_rank={self.max_rank}")
        if self.kind == "adalora" and self.target_rank > self.initial_rank:
            _refuse("target_rank", self.target_rank, f"1 to initial_rank={self.initial_rank}")

    def _check_targets(self) -> None:
        if not self.targets:
            _refuse("targets", "()", "at least one pattern")
        for rule in self.targets:
            try:
                found = any(re.search(rule, path) for path in PROJECTIONS)
            except re.error:
                found = False
            if not found:
                _refuse("targets", repr(rule), f"a pattern that matches {', '.join(PROJECTIONS)}")

    @property
    def first_rank(self) -> int:
        """The rank at the start."""
        return self.initial_rank if self.kind == "adalora" else self.rank

    @property
    def width(self) -> int:
        """Rank that the arrays have room for."""
        return self.first_rank if self.max_rank is None else self.max_rank

    @property
    def largest_threshold(self) -> float:
        return 1.0 / self.experts if self.threshold_max is None else self.threshold_max


def _refuse(name: str, value: object, allowed: str) -> NoReturn:
    raise UsageError(f"adapter.{name}={value}; allowed: {allowed}")


_CHOICES = {"kind": get_args(Kind), "init": get_args(Init), "base_dtype": get_args(BaseDtype)}
