"""Which optimizer (static) and its numbers (traced)."""

import math
import re
from dataclasses import dataclass
from typing import Literal, NoReturn, get_args

from jaxhpo.errors import UsageError

ROLES = (
    "embedding",
    "readout",
    "norm",
    "query",
    "key",
    "value",
    "attention_out",
    "mlp_in",
    "mlp_out",
)
"""What a parameter does in a transformer; a component is what has one role in one layer."""

NUMBERS = {
    "adamw": ("beta1", "beta2", "eps"),
    "adam": ("beta1", "beta2", "eps"),
    "sgd": ("momentum",),
    "lion": ("beta1", "beta2"),
    "muon": ("momentum", "muon_rms", "muon_adam_lr", "beta1", "beta2", "eps"),
    "adafactor": ("adafactor_exponent", "adafactor_eps", "adafactor_clip"),
}
"""Numbers that each update rule has."""

CLIPS = ("clip_value", "clip_norm", "clip_tensor", "clip_role")
ROLE_CLIPS = tuple(f"clip_role_{role}" for role in ROLES)

TRACED = frozenset(
    {*(name for names in NUMBERS.values() for name in names), *CLIPS, *ROLE_CLIPS}
    | {"weight_decay", "weight_decay_end"}
)
"""Fields that may change without a new program."""

MAY_BE_INFINITE = frozenset({*CLIPS, *ROLE_CLIPS, "adafactor_clip"})
"""Thresholds: infinity switches them off."""

Kind = Literal["adamw", "adam", "sgd", "lion", "muon", "adafactor"]
Decay = Literal["lr", "schedule", "constant", "l2"]
DecaySchedule = Literal["constant", "lr", "linear", "cosine"]
MomentDtype = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class OptimizerConfig:
    """The update rule and its hyperparameters. A number that the rule lacks has no effect."""

    kind: Kind = "adamw"
    """update rule; adam is adamw with L2 in place of decoupled decay"""
    beta1: float = 0.9
    """decay of the first moment; of muon: of its Adam part"""
    beta2: float = 0.95
    """decay of the second moment; of lion: of its momentum"""
    eps: float = 1e-8
    """added to the root of the second moment"""
    momentum: float | None = None
    """of sgd (default: 0.9; 0 keeps no state) and of muon (default: 0.95)"""
    nesterov: bool | None = None
    """look ahead along the momentum of sgd (default: no) and of muon (default: yes)"""
    muon_rms: float | None = 0.2
    """root mean square of muon's step before the rate; none: sqrt(max(1, outputs / inputs))"""
    muon_adam_lr: float = 1.0
    """rate of what muon leaves to AdamW (all but the blocks' matrices), as a share of the rate"""
    adafactor_exponent: float = 0.8
    """adafactor's second moment decays by 1 - step^-exponent"""
    adafactor_eps: float = 1e-30
    """added to adafactor's squared gradient"""
    adafactor_clip: float = 1.0
    """largest root mean square of adafactor's step in one tensor; inf switches it off"""
    adafactor_min_dim: int = 128
    """smallest side of a matrix whose second moment is kept as rows and columns"""
    adafactor_relative: bool = True
    """adafactor's steps are relative to the root mean square of the tensor that they change"""
    weight_decay: float | None = None
    """coefficient of the decay (default: 0.1 where it is times the learning rate, else 0)"""
    decay: Decay | None = None
    """times the learning rate (torch, optax; default), times the schedule's shape only (Loshchilov
    and Hutter), constant per step, or l2: added to the gradient (default of adam and sgd)"""
    decay_schedule: DecaySchedule = "constant"
    """the coefficient over steps: constant, in proportion to the rate (AdamC), or moving to
    weight_decay_end at the end of the run"""
    weight_decay_end: float = 0.0
    """coefficient at the end of the run, of a linear or cosine decay_schedule"""
    decay_embeddings: bool = True
    """decay embeddings too (norms and biases are spared)"""
    decay_rules: tuple[str, ...] = ()
    """PATTERN=SHARE of the decay for the tensors whose path matches, such as mlp/down=0.5"""
    clip_norm: float = 1.0
    """largest global norm of the gradient, the last clipping; inf switches clipping off"""
    clip_value: float = math.inf
    """largest entry of the gradient, the first clipping; inf switches it off"""
    clip_tensor: float = math.inf
    """largest norm of each tensor's gradient, one layer at a time (CWGNC); inf switches it off"""
    clip_role: float = math.inf
    """largest norm of each role's gradient, one layer at a time; inf switches it off"""
    clip_role_embedding: float | None = None
    """of the embeddings (default: clip_role)"""
    clip_role_readout: float | None = None
    """of an untied read-out (default: clip_role)"""
    clip_role_norm: float | None = None
    """of gains and offsets of norms (default: clip_role)"""
    clip_role_query: float | None = None
    """of the query projection (default: clip_role)"""
    clip_role_key: float | None = None
    """of the key projection (default: clip_role)"""
    clip_role_value: float | None = None
    """of the value projection (default: clip_role)"""
    clip_role_attention_out: float | None = None
    """of the attention's output projection (default: clip_role)"""
    clip_role_mlp_in: float | None = None
    """of the feed-forward layer's input side, gate and up together (default: clip_role)"""
    clip_role_mlp_out: float | None = None
    """of the feed-forward layer's output side (default: clip_role)"""
    moment_dtype: MomentDtype = "float32"
    """of first moments and momentum; all else that an optimizer keeps is float32"""

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) is not None and getattr(self, name) not in allowed:
                _refuse(name, getattr(self, name), ", ".join(allowed))
        for name in ("beta1", "beta2", "momentum"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                _refuse(name, value, f"0 <= {name.rstrip('12')} < 1")
        for name in _NOT_NEGATIVE:
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                _refuse(name, value, "a finite number, 0 or more")
        for name in sorted(MAY_BE_INFINITE):
            if (value := getattr(self, name)) is not None and not value > 0:
                _refuse(name, value, "above 0, or inf for no clipping")
        if self.adafactor_min_dim < 1:
            _refuse("adafactor_min_dim", self.adafactor_min_dim, "1 or more")
        self._check_decay()
        for rule in self.decay_rules:
            parse_rule(rule)

    def _check_decay(self) -> None:
        if self.kind == "adamw" and self.decay == "l2":
            raise UsageError("optimizer.decay=l2 makes adamw Adam; use optimizer.kind adam")
        if self.kind == "adam" and self.decay not in (None, "l2"):
            raise UsageError(f"optimizer.decay={self.decay} makes adam AdamW; use kind adamw")

    @property
    def convention(self) -> Decay:
        """`decay`, or what the update rule has by default."""
        return self.decay or ("l2" if self.kind in ("adam", "sgd") else "lr")

    @property
    def coefficient(self) -> float:
        """`weight_decay`, or what its convention has by default."""
        default = 0.1 if self.convention == "lr" else 0.0
        return default if self.weight_decay is None else self.weight_decay

    @property
    def inertia(self) -> float:
        """`momentum`, or what the update rule has by default."""
        default = 0.95 if self.kind == "muon" else 0.9
        return default if self.momentum is None else self.momentum

    @property
    def looks_ahead(self) -> bool:
        """`nesterov`, or what the update rule has by default."""
        return self.kind == "muon" if self.nesterov is None else self.nesterov

    def threshold(self, role: str) -> float:
        """Largest norm of a role's gradient in one layer."""
        own = getattr(self, f"clip_role_{role}")
        return self.clip_role if own is None else own


def parse_rule(rule: str) -> tuple[re.Pattern[str], float]:
    """Pattern and share of a decay rule. Raises UsageError where it is none."""
    pattern, equals, share = rule.rpartition("=")
    try:
        value = float(share)
        if equals and pattern and math.isfinite(value) and value >= 0:
            return re.compile(pattern), value
    except (ValueError, re.error):
        pass
    _refuse("decay_rules", repr(rule), "PATTERN=SHARE with a regular expression and 0 or more")


def _refuse(name: str, value: object, allowed: str) -> NoReturn:
    raise UsageError(f"optimizer.{name}={value}; allowed: {allowed}")


_NOT_NEGATIVE = (
    "eps",
    "weight_decay",
    "weight_decay_end",
    "muon_rms",
    "muon_adam_lr",
    "adafactor_exponent",
    "adafactor_eps",
)

_CHOICES = {
    "kind": get_args(Kind),
    "decay": get_args(Decay),
    "decay_schedule": get_args(DecaySchedule),
    "moment_dtype": get_args(MomentDtype),
}
