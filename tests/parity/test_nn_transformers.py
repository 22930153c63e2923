"""The transformer against the reference library's models, with the same random weights."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxhpo import nn
from tests.parity.models import D, L, N, T, V, gpt2, grouped, nested, stacked, weights_of

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


def assert_equal_logits(config, params, model, *, tolerance=1e-4):
    tokens = np.random.default_rng(0).integers(0, V, (2, T))
    with torch.no_grad():
        theirs = model(torch.tensor(tokens))
        if "logits" in theirs:
            theirs = theirs.logits
        else:
            theirs = theirs.last_hidden_state @ model.get_input_embeddings().weight.T
    ours = nn.apply(config, params, jnp.asarray(tokens, jnp.int32))
    assert np.abs(theirs.numpy()).max() > 1.0  # weights large enough for a difference to show
    np.testing.assert_allclose(ours, theirs.numpy(), atol=tolerance, rtol=tolerance)


def test_gpt2_gives_the_same_logits():
    assert_equal_logits(*gpt2())


@pytest.mark.parametrize(
    ("family", "head_dim", "tied"),
    [("Llama", 8, False), ("Llama", 8, True), ("Qwen3", 12, False)],
)
def test_grouped_rotary_families_give_the_same_logits(family, head_dim, tied):
    assert_equal_logits(*grouped(family, head_dim, tied))


def test_bert_gives_the_same_states():
    settings = transformers.BertConfig(
        vocab_size=V,
        hidden_size=D,
        num_hidden_layers=L,
        num_attention_heads=N,
        intermediate_size=48,
        max_position_embeddings=T,
        attn_implementation="eager",
    )
    reference = transformers.BertModel(settings, add_pooling_layer=False).eval()
    w = weights_of(reference)
    pattern = {}
    for ours, theirs in (
        ("attention/query", "attention.self.query"),
        ("attention/key", "attention.self.key"),
        ("attention/value", "attention.self.value"),
        ("attention/out", "attention.output.dense"),
        ("attention_norm", "attention.output.LayerNorm"),
        ("mlp/up", "intermediate.dense"),
        ("mlp/down", "output.dense"),
        ("mlp_norm", "output.LayerNorm"),
    ):
        matrix = "norm" not in ours
        leaf = "kernel" if matrix else "scale"
        pattern[f"{ours}/{leaf}"] = (f"encoder.layer.{{}}.{theirs}.weight", matrix)
        pattern[f"{ours}/bias"] = (f"encoder.layer.{{}}.{theirs}.bias", False)
    segment = w["embeddings.token_type_embeddings.weight"][0]  # one segment: part of the position
    params = nested(
        {
            "embed/embedding": w["embeddings.word_embeddings.weight"],
            "positions/embedding": w["embeddings.position_embeddings.weight"] + segment,
            "embed_norm/scale": w["embeddings.LayerNorm.weight"],
            "embed_norm/bias": w["embeddings.LayerNorm.bias"],
            **{f"blocks/{name}": rows for name, rows in stacked(w, pattern).items()},
        }
    )
    config = nn.ModelConfig(
        num_layers=L,
        d_model=D,
        num_heads=N,
        d_mlp=48,
        vocab_size=V,
        context=T,
        norm="layer",
        norm_position="post",
        norm_eps=1e-12,
        attention="bidirectional",
        position="learned",
        bias=True,
    )
    assert_equal_logits(config, params, reference)
