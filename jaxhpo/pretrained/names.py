"""Where each parameter stands in a folder of a family."""

from dataclasses import dataclass

from jaxhpo.errors import UsageError
from jaxhpo.nn.config import ModelConfig
from jaxhpo.nn.sizes import tensors

THIRDS = 3

UNTIED_BIASES = {
    "cls.predictions.bias": "cls.predictions.decoder.bias",
    "lm_head.bias": "lm_head.decoder.bias",
}
"""Bias of an encoder's read-out -> the one that is used where the embeddings are not tied."""


@dataclass(frozen=True)
class Source:
    """The tensor that holds a parameter; `{}` in its name is the layer.

    It may be stored transposed, be one third (0, 1, 2) of the columns of a fused one, or follow
    `skipped` rows that the model never uses.
    """

    name: str
    transposed: bool = False
    third: int | None = None
    skipped: int = 0

    def stored(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the whole tensor, from that of the parameter (of one layer)."""
        shape = shape[::-1] if self.transposed else shape
        if self.third is not None:
            shape = (*shape[:-1], THIRDS * shape[-1])
        return (shape[0] + self.skipped, *shape[1:])

    def where(self, index: tuple[slice, ...], shape: tuple[int, ...]) -> tuple[slice, ...]:
        """The part of the tensor that holds `index` of the parameter of this shape (one layer)."""
        spans = [part.indices(size)[:2] for part, size in zip(index, shape, strict=True)]
        spans = spans[::-1] if self.transposed else spans
        if self.third is not None:
            before = self.third * (shape[0] if self.transposed else shape[-1])
            spans[-1] = spans[-1][0] + before, spans[-1][1] + before
        spans[0] = spans[0][0] + self.skipped, spans[0][1] + self.skipped
        return tuple(slice(*span) for span in spans)


@dataclass(frozen=True)
class Names:
    """A family's names: its body's prefix, and parameters below it or (head) beside it."""

    prefix: str
    body: dict[str, Source]
    head: dict[str, Source]


def sources(family: str, config: ModelConfig, first_position: int = 0) -> dict[str, Source]:
    """Parameter -> its source, for all that the model has; those of the body lack the prefix."""
    names = WEIGHTS[family]
    known = {**names.body, **names.head}
    if not config.tie_embeddings and "readout_bias" in known:
        bias = known["readout_bias"].name
        known["readout_bias"] = Source(UNTIED_BIASES[bias])
    found = {}
    for path in tensors(config):
        if path not in known:
            raise UsageError(f"{family} folders have no place for {path}")
        skipped = first_position if path == "positions/embedding" else 0
        source = known[path]
        found[path] = Source(source.name, source.transposed, source.third, skipped)
    return found


def _linear(ours: str, theirs: str, transposed: bool = True) -> dict[str, Source]:
    return {
        f"{ours}/kernel": Source(f"{theirs}.weight", transposed),
        f"{ours}/bias": Source(f"{theirs}.bias"),
    }


def _norm(ours: str, theirs: str) -> dict[str, Source]:
    return {f"{ours}/scale": Source(f"{theirs}.weight"), f"{ours}/bias": Source(f"{theirs}.bias")}


def _gpt2() -> Names:
    body = {"embed/embedding": Source("wte.weight"), "positions/embedding": Source("wpe.weight")}
    body |= _norm("final_norm", "ln_f")
    body |= _norm("blocks/attention_norm", "h.{}.ln_1") | _norm("blocks/mlp_norm", "h.{}.ln_2")
    for third, part in enumerate(("query", "key", "value")):
        for leaf, theirs in (("kernel", "weight"), ("bias", "bias")):
            fused = Source(f"h.{{}}.attn.c_attn.{theirs}", third=third)
            body[f"blocks/attention/{part}/{leaf}"] = fused
    for ours, theirs in (
        ("attention/out", "attn.c_proj"),
        ("mlp/up", "mlp.c_fc"),
        ("mlp/down", "mlp.c_proj"),
    ):
        body |= _linear(f"blocks/{ours}", f"h.{{}}.{theirs}", transposed=False)
    return Names("transformer.", body, {"readout": Source("lm_head.weight", True)})


def _llama() -> Names:
    body = {"embed/embedding": Source("embed_tokens.weight"), **_norm("final_norm", "norm")}
    block = "layers.{}."
    body |= _norm("blocks/attention_norm", f"{block}input_layernorm")
    body |= _norm("blocks/mlp_norm", f"{block}post_attention_layernorm")
    for ours, theirs in (("query", "q"), ("key", "k"), ("value", "v"), ("out", "o")):
        body |= _linear(f"blocks/attention/{ours}", f"{block}self_attn.{theirs}_proj")
    for name in ("up", "gate", "down"):
        body |= _linear(f"blocks/mlp/{name}", f"{block}mlp.{name}_proj")
    for ours, theirs in (("query", "q"), ("key", "k")):
        scale = Source(f"{block}self_attn.{theirs}_norm.weight")
        body[f"blocks/attention/{ours}_norm/scale"] = scale
    return Names("model.", body, {"readout": Source("lm_head.weight", True)})


def _bert(prefix: str, dense: str, norm: str, bias: str, decoder: str) -> Names:
    table, block = "embeddings.{}_embeddings.weight", "encoder.layer.{}."
    body = {
        "embed/embedding": Source(table.format("word")),
        "positions/embedding": Source(table.format("position")),
        "token_types/embedding": Source(table.format("token_type")),
        **_norm("embed_norm", "embeddings.LayerNorm"),
        **_norm("blocks/attention_norm", f"{block}attention.output.LayerNorm"),
        **_norm("blocks/mlp_norm", f"{block}output.LayerNorm"),
        **_linear("blocks/attention/out", f"{block}attention.output.dense"),
        **_linear("blocks/mlp/up", f"{block}intermediate.dense"),
        **_linear("blocks/mlp/down", f"{block}output.dense"),
    }
    for part in ("query", "key", "value"):
        body |= _linear(f"blocks/attention/{part}", f"{block}attention.self.{part}")
    head = {**_linear("readout_dense", dense), **_norm("readout_norm", norm)}
    head |= {"readout_bias": Source(bias), "readout": Source(decoder, True)}
    return Names(prefix, body, head)


WEIGHTS: dict[str, Names] = {
    "gpt2": _gpt2(),
    "llama": _llama(),
    "mistral": _llama(),
    "qwen2": _llama(),
    "qwen3": _llama(),
    "bert": _bert(
        "bert.",
        "cls.predictions.transform.dense",
        "cls.predictions.transform.LayerNorm",
        "cls.predictions.bias",
        "cls.predictions.decoder.weight",
    ),
    "roberta": _bert(
        "roberta.", "lm_head.dense", "lm_head.layer_norm", "lm_head.bias", "lm_head.decoder.weight"
    ),
}
"""`model_type` -> names; families without an entry have a size here, but can't be loaded."""
