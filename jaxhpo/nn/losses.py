"""Cross-entropy and the terms added to it in training."""

import jax
import jax.numpy as jnp

from jaxhpo.errors import UsageError
from jaxhpo.nn.config import ModelConfig
from jaxhpo.nn.hyperparams import Dropout, LossTerms
from jaxhpo.nn.transformer import Params, apply

Array = jax.Array


def loss(
    config: ModelConfig,
    params: Params,
    batch: dict[str, Array],
    *,
    dropout: Dropout | None = None,
    terms: LossTerms | None = None,
    key: Array | None = None,
    unroll: bool | int = 1,
) -> Array:
    """Mean loss f32[] in nats per target token.

    `batch` holds "tokens" i32[B, T+1], whose next-token targets are its own shift; or "tokens"
    i32[B, T] with "labels" i32[B, T]. An optional "mask" f32[B, T] weighs the targets; their
    weighted mean is returned (0 where every weight is 0). "token_types" and "real", both [B, T], go
    to `apply`; "segments" i32[B, T] are in place of "real" where a row holds several texts, each
    of which sees itself alone (the model's positions must be relative, or none). Without a key this
    is evaluation: plain cross-entropy, whatever `terms` and `dropout` hold. Raises UsageError for a
    bidirectional model without labels, which would see its targets.
    """
    if "labels" in batch:
        inputs, labels = batch["tokens"], batch["labels"]
    elif config.attention == "bidirectional":
        raise UsageError(
            "model.attention=bidirectional sees its next token; give the batch labels, "
            "or use model.attention causal"
        )
    else:
        inputs, labels = batch["tokens"][:, :-1], batch["tokens"][:, 1:]
    terms = LossTerms() if terms is None or key is None else terms
    logits = apply(
        config,
        params,
        inputs,
        token_types=batch.get("token_types"),
        real=_seen(batch),
        dropout=dropout,
        key=key,
        unroll=unroll,
    )
    losses = cross_entropy(logits, labels, terms)
    mask = batch.get("mask")
    if mask is None:
        return losses.mean()
    # a weight of zero also silences the NaN of a label outside the vocabulary, such as -1
    weighed = jnp.where(mask > 0, losses * mask, 0.0).sum()
    return weighed / jnp.maximum(mask.sum(), jnp.finfo(jnp.float32).tiny)


def _seen(batch: dict[str, Array]) -> Array | None:
    segments = batch.get("segments")
    if segments is None:
        return batch.get("real")
    return segments[:, :, None] == segments[:, None, :]


def cross_entropy(logits: Array, labels: Array, terms: LossTerms | None = None) -> Array:
    """Cross-entropy in nats: f32[..., V], i32[...] -> f32[...]; NaN for a label outside [0, V).

    With label smoothing s the target is 1 - s at the label plus s / V everywhere (Szegedy et al.
    2016, arXiv 1512.00567); z-loss adds its weight times the squared log-partition (PaLM, arXiv
    2204.02311). The label's logit is picked by a fused comparison: no one-hot array, no scatter.
    """
    terms = LossTerms() if terms is None else terms
    vocabulary = jnp.arange(logits.shape[-1])
    hit = jnp.sum(jnp.where(vocabulary == labels[..., None], logits, 0.0), -1)
    hit = jnp.where((labels >= 0) & (labels < logits.shape[-1]), hit, jnp.nan)
    partition = jax.nn.logsumexp(logits, -1)
    if (share := terms.label_smoothing) is not None:
        hit = (1.0 - share) * hit + share * logits.mean(-1)
    total = partition - hit
    if terms.z_loss is not None:
        total = total + terms.z_loss * partition**2
    return total
