"""How large a model is, what it costs to train and to run, and on how many chips; never jax."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jaxhpo.errors import UsageError
from jaxhpo.nn import sizes
from jaxhpo.nn.config import ModelConfig
from jaxhpo.nn.published import Published
from jaxhpo.optimizers.sizes import state_bytes
from jaxhpo.population.chips import CHIPS, Chip
from jaxhpo.population.memory import USABLE

CHINCHILLA = 20
"""Tokens a parameter that are assumed where no budget is named (Hoffmann et al. 2022)."""


@dataclass(frozen=True)
class Training:
    """Bytes of one model in training, unsharded, on a batch."""

    weights: int
    gradients: int
    moments: int
    activations: int

    @property
    def state(self) -> int:
        """What is split over the chips that share a model; activations go with the batch."""
        return self.weights + self.gradients + self.moments

    @property
    def total(self) -> int:
        return self.state + self.activations


@dataclass(frozen=True)
class Budget:
    """Training on one kind of chip: how many hold it, and how long they take."""

    chip: str
    fewest: int | None
    """chips whose memory holds the state, split over all of them, and one sequence on each, with
    remat and fused attention; None where not even that sequence fits"""
    chips: int
    days: float


@dataclass(frozen=True)
class Sizes:
    """A model's parameters by part, operations a token, bytes, and time on chips."""

    model: ModelConfig
    batch: int
    parts: Mapping[str, int]
    training: Training
    rebuilt: Training
    """the same with `remat`: blocks computed again in the backward pass"""
    tokens: float
    utilisation: float
    budgets: tuple[Budget, ...]

    @property
    def parameters(self) -> int:
        return sum(self.parts.values())

    @property
    def beyond_embedding(self) -> int:
        """Parameters without the tables that are looked up."""
        return self.parameters - sum(self.parts.get(p, 0) for p in ("token embedding", "positions"))

    def flops(self, recompute: bool = False) -> float:
        """Operations per trained token at the model's context."""
        return _flops(self.model, self.parameters, recompute)

    @property
    def attention_share(self) -> float:
        """Share of attention over other tokens in all operations."""
        return 3 * sizes.attention_flops_per_token(self.model, self.model.context) / self.flops()

    @property
    def serving_weights(self) -> int:
        """Bytes of the weights in the compute dtype."""
        return self.parameters * (2 if self.model.compute_dtype == "bfloat16" else 4)

    @property
    def cache(self) -> int:
        """Bytes of keys and values of `batch` texts of the model's context."""
        return self.batch * self.model.context * sizes.cache_bytes_per_token(self.model)

    @property
    def reading(self) -> int:
        """Bytes beside the cache while prompts as long as the context are read."""
        return sizes.reading_bytes(self.model, self.batch, self.model.context, self.model.context)

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain numbers, for JSON."""
        training = lambda t: {**dataclasses.asdict(t), "total": t.total}
        return {
            "model": dataclasses.asdict(self.model),
            "parameters": {
                "total": self.parameters,
                "without_embeddings": self.beyond_embedding,
                "parts": dict(self.parts),
            },
            "flops_per_token": {
                "context": self.model.context,
                "trained": self.flops(),
                "trained_with_recomputation": self.flops(recompute=True),
                "attention_share": self.attention_share,
            },
            "training_bytes": {
                "batch": self.batch,
                **training(self.training),
                "with_remat": training(self.rebuilt),
            },
            "generation_bytes": {
                "batch": self.batch,
                "weights": self.serving_weights,
                "cache_per_token": sizes.cache_bytes_per_token(self.model),
                "cache": self.cache,
                "reading": self.reading,
            },
            "budget": {
                "tokens": self.tokens,
                "flops": self.tokens * self.flops(),
                "utilisation": self.utilisation,
                "chips": [dataclasses.asdict(budget) for budget in self.budgets],
            },
        }


def measure(
    shape: Published,
    *,
    batch: int,
    optimizer: Any,
    unrolled: bool = False,
    tokens: float | None = None,
    utilisation: float = 0.4,
    chips: int | None = None,
    kinds: Sequence[str] = tuple(CHIPS),
) -> Sizes:
    """The sizes of a model that trains on `batch` sequences of its context at once.

    `tokens` (default: 20 a parameter) are trained on `chips` of each kind (default: the fewest
    that hold it) at a share `utilisation` of their peak. Raises UsageError for what is not allowed.
    """
    if batch < 1:
        raise UsageError(f"batch={batch}; allowed: 1 or more")
    if not 0.0 < utilisation <= 1.0:
        raise UsageError(f"utilisation={utilisation}; allowed: above 0, up to 1")
    if tokens is not None and not 0.0 < tokens < math.inf:
        raise UsageError(f"tokens={tokens}; allowed: above 0")
    if chips is not None and chips < 1:
        raise UsageError(f"chips={chips}; allowed: 1 or more")
    model = shape.model
    parts = {**sizes.parts(model), **shape.beside}
    total = sum(parts.values())
    tokens = CHINCHILLA * total if tokens is None else tokens
    training = lambda remat: train_bytes(model, optimizer, batch, remat, unrolled, parts)
    state = training(model.remat).state
    least = sizes.activation_bytes(model, 1, model.context, remat=True, fused=True)
    flops = tokens * _flops(model, total, False)
    budgets = tuple(
        _budget(kind, CHIPS[kind], state, least, flops, utilisation, chips) for kind in kinds
    )
    return Sizes(model, batch, parts, training(False), training(True), tokens, utilisation, budgets)


def train_bytes(
    model: ModelConfig,
    optimizer: Any,
    batch: int,
    remat: bool,
    unrolled: bool,
    parts: Mapping[str, int] | None = None,
) -> Training:
    """Bytes of training on `batch` sequences of the model's context, on one device."""
    counted = sizes.count_parameters(model)
    scale = sum(parts.values()) / counted if parts else 1.0  # what ModelConfig has no field for
    weights = sizes.parameter_bytes(model)
    # not `population.memory.member_bytes`, which loads jax to ask what a search changes
    kept = {"momentum"} if optimizer.inertia else set()
    moments = state_bytes(optimizer, sizes.tensors(model), kept)
    whole = lambda size: round(scale * size)
    return Training(
        weights=whole(weights),
        gradients=whole(4 * counted),
        moments=whole(moments),
        activations=sizes.activation_bytes(model, batch, model.context, remat, unrolled),
    )


def _flops(model: ModelConfig, parameters: int, recompute: bool) -> float:
    beside = parameters - sizes.count_parameters(model)
    return sizes.flops_per_token(model, model.context, recompute) + beside * (
        8.0 if recompute else 6.0
    )


def _budget(
    name: str,
    chip: Chip,
    state: int,
    least: int,
    flops: float,
    utilisation: float,
    chips: int | None,
) -> Budget:
    free = USABLE * chip.memory - least
    fewest = math.ceil(state / free) if free > 0 else None
    count = chips or fewest or 1
    return Budget(name, fewest, count, flops / (count * chip.flops * utilisation) / 86400)


@dataclass(frozen=True)
class Change:
    """What a change of shape does, each as a factor of what was before."""

    name: str
    before: int
    after: int
    parameters: float
    flops: float
    activations: float
    cache: float


def sensitivity(model: ModelConfig, batch: int) -> tuple[Change, ...]:
    """Each size of the shape doubled alone (key/value heads: halved), and what follows."""
    return tuple(
        _change(model, changed, name, batch)
        for name, changed in _doubled(model)
        if changed is not None
    )


def _doubled(model: ModelConfig) -> list[tuple[str, ModelConfig | None]]:
    def changed(**values: int) -> ModelConfig | None:
        try:
            return replace(model, **values)
        except UsageError:
            return None

    twice = lambda name: changed(**{name: 2 * getattr(model, name)})
    wide = changed(d_model=2 * model.d_model, **(_times_two(model, "d_mlp")))
    return [
        ("num_layers", twice("num_layers")),
        ("d_model", wide),
        ("num_heads", twice("num_heads") if model.head_dim is None else None),
        ("num_kv_heads", changed(num_kv_heads=model.kv_heads // 2) if model.kv_heads > 1 else None),
        ("d_mlp", changed(d_mlp=2 * model.mlp_width)),
        ("vocab_size", twice("vocab_size")),
        ("context", twice("context")),
    ]


def _times_two(model: ModelConfig, name: str) -> dict[str, int]:
    value = getattr(model, name)
    return {} if value is None else {name: 2 * value}


def _change(model: ModelConfig, other: ModelConfig, name: str, batch: int) -> Change:
    derived = {"num_kv_heads": "kv_heads", "d_mlp": "mlp_width"}
    value = lambda config: getattr(config, derived.get(name, name))
    ratio = lambda measure: measure(other) / measure(model)
    held = lambda m: sizes.activation_bytes(m, batch, m.context, m.remat)
    return Change(
        name=name,
        before=value(model),
        after=value(other),
        parameters=ratio(sizes.count_parameters),
        flops=ratio(lambda m: sizes.flops_per_token(m, m.context)),
        activations=ratio(held),
        cache=ratio(lambda m: m.context * sizes.cache_bytes_per_token(m)),
    )


DEEPEST = 256
"""Layers of the deepest shape that is proposed."""

ASPECTS = (32, 64, 96, 128, 192)
"""Widths over depths that are proposed."""


def fit(
    parameters: float, like: ModelConfig, head_dim: int = 64, aspects: Sequence[int] = ASPECTS
) -> tuple[ModelConfig, ...]:
    """Shapes of nearly so many parameters, one an aspect ratio d_model / num_layers.

    Widths are multiples of `head_dim`; vocabulary, context, kind of block and the ratio of query to
    key/value heads are those of `like`. Raises UsageError where nothing comes within a tenth.
    """
    if not 0 < parameters < math.inf:
        raise UsageError(f"fit={parameters}; allowed: above 0")
    found: dict[tuple[int, int], ModelConfig] = {}
    for aspect in aspects:
        shapes = list(_shapes(aspect, like, head_dim))
        shape = min(shapes, key=lambda shape: _distance(shape, parameters), default=like)
        if shapes and _distance(shape, parameters) <= 0.1:
            found[shape.num_layers, shape.d_model] = shape
    if not found:
        tried = (shape for aspect in aspects for shape in _shapes(aspect, like, head_dim))
        least = min(map(sizes.count_parameters, tried))
        raise UsageError(
            f"fit={parameters:.4g}: no shape with heads of {head_dim} and {like.vocab_size:,} "
            f"tokens comes within a tenth; the smallest has {least:,} parameters (try a smaller "
            "--head-dim or --model.vocab-size)"
        )
    return tuple(found.values())


def _distance(model: ModelConfig, parameters: float) -> float:
    return abs(sizes.count_parameters(model) / parameters - 1.0)


def _shapes(aspect: int, like: ModelConfig, head_dim: int) -> Iterator[ModelConfig]:
    """Shapes of about one aspect ratio, from small to large."""
    group = like.num_heads // like.kv_heads
    for layers in range(1, DEEPEST + 1):
        nearest = max(round(layers * aspect / head_dim / group), 1)
        for groups in {max(nearest - 1, 1), nearest, nearest + 1}:
            heads = groups * group
            if not 0.6 <= heads * head_dim / (layers * aspect) <= 1.6:
                continue
            yield replace(
                like,
                num_layers=layers,
                d_model=heads * head_dim,
                num_heads=heads,
                num_kv_heads=None if like.num_kv_heads is None else groups,
                head_dim=None,
                d_mlp=None,
            )
