"""A transformer that reads classes or numbers off its texts, as a task."""

from dataclasses import dataclass, field
from typing import Literal

import jax
import jax.numpy as jnp

from jaxhpo import nn, optimizers
from jaxhpo.nn.config import HeadConfig
from jaxhpo.nn.heads import class_losses, head_tensors, init_head, read, square_losses, weighed
from jaxhpo.population.hyperparams import Hyperparams
from jaxhpo.population.task import Batch, LanguageModel, Params

EXTRA = 0x4EAD
"""Stream of a newborn's key that its head is drawn from; the model draws from the key itself."""


@dataclass(frozen=True)
class HeadedModel(LanguageModel):
    """A transformer with a head of `outputs` classes, or of one number.

    Batches are {"tokens": i32[B, T], "lengths": i32[B], "labels": [B]}, padded on the right, if
    need be with "token_types" i32[B, T] and a "weight" f32[B]. Raises UsageError for a decay rule
    that fits no parameter or overlaps another.
    """

    head: HeadConfig = field(default_factory=HeadConfig)
    outputs: int = 2
    kind: Literal["classes", "number"] = "classes"

    def __post_init__(self) -> None:
        shapes = nn.tensors(self.model) | head_tensors(self.model, self.outputs)
        optimizers.decay_shares(self.update_rule, shapes)

    def init(self, key: jax.Array, hyperparams: Hyperparams) -> Params:
        return super().init(key, hyperparams) | self.extra(key)

    def extra(self, key: jax.Array) -> Params:
        """The head, for a model whose other weights come from elsewhere."""
        own = jax.random.fold_in(key, EXTRA)
        return {"head": init_head(self.model, self.outputs, own)}

    def loss(
        self, params: Params, batch: Batch, hyperparams: Hyperparams, key: jax.Array | None
    ) -> jax.Array:
        found = self.outputs_of(params, batch, hyperparams, key)
        return weighed(self._losses(found, batch["labels"]), batch.get("weight"))

    def examine(
        self, params: Params, batch: Batch, hyperparams: Hyperparams
    ) -> dict[str, jax.Array]:
        """The held-out loss f32[], and the class or number of each text, f32[B]; NaN where the
        outputs are not finite."""
        found = self.outputs_of(params, batch, hyperparams, None)
        losses = weighed(self._losses(found, batch["labels"]), batch.get("weight"))
        said = found[:, 0]
        if self.kind == "classes":
            finite = jnp.isfinite(found).all(-1)
            said = jnp.where(finite, jnp.argmax(found, -1).astype(jnp.float32), jnp.nan)
        return {"loss": losses, "predictions": said}

    def outputs_of(
        self, params: Params, batch: Batch, hyperparams: Hyperparams, key: jax.Array | None
    ) -> jax.Array:
        """Logits f32[B, C], or numbers f32[B, 1]."""
        keys = (None, None) if key is None else jax.random.split(key)
        model = {name: value for name, value in params.items() if name != "head"}
        lengths = batch["lengths"]
        real = None
        if self.model.attention == "bidirectional":
            real = jnp.arange(batch["tokens"].shape[1]) < lengths[:, None]
        states = nn.states(
            self.model,
            model,
            batch["tokens"],
            token_types=batch.get("token_types") if self.model.token_types else None,
            real=real,
            dropout=hyperparams.dropout,
            key=keys[0],
            unroll=self.unroll,
        )
        rate = None if hyperparams.head is None else hyperparams.head.dropout
        return read(self.model, self.head, params["head"], states, lengths, rate=rate, key=keys[1])

    def _losses(self, found: jax.Array, labels: jax.Array) -> jax.Array:
        return (
            class_losses(found, labels) if self.kind == "classes" else square_losses(found, labels)
        )
