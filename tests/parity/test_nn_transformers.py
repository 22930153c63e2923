"""The transformer against the reference library's models, with the same random weights."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxhpo import nn

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

V, D, L, N, T = 61, 32, 3, 4, 16


def weights_of(model):
    """Random weights by name, norms and biases included: at their initial values they hide."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.normal_(0.0, 0.2)
            if "norm" in name.lower() or "ln_" in name:
                weight.add_(1.0)
    return {name: weight.detach().numpy() for name, weight in model.named_parameters()}


def stacked(weights, pattern):
    """Rows [L, ...] of every parameter that `pattern` (parameter -> name with {}) describes."""

    def rows(name, transposed):
        found = [weights[name.format(i)] for i in range(L)]
        return np.stack([row.T if transposed else row for row in found])

    return {ours: rows(name, transposed) for ours, (name, transposed) in pattern.items()}


def nested(flat):
    """A nested dict from slash-separated names."""
    tree = {}
    for path, value in flat.items():
        *folders, leaf = path.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[leaf] = jnp.asarray(value)
    return tree


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
    reference = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=V, n_embd=D, n_layer=L, n_head=N, n_positions=T, attn_implementation="eager"
        )
    ).eval()
    w = weights_of(reference)
    fused = {}
    for name in ("weight", "bias"):
        rows = np.stack([w[f"transformer.h.{i}.attn.c_attn.{name}"] for i in range(L)])
        leaf = "kernel" if name == "weight" else "bias"
        parts = zip(("query", "key", "value"), np.split(rows, 3, -1), strict=True)
        fused |= {f"attention/{part}/{leaf}": row for part, row in parts}
    block = "transformer.h.{}."
    pattern = {}
    for ours, theirs in (
        ("attention/out", "attn.c_proj"),
        ("mlp/up", "mlp.c_fc"),
        ("mlp/down", "mlp.c_proj"),
        ("attention_norm", "ln_1"),
        ("mlp_norm", "ln_2"),
    ):
        leaf = "scale" if "norm" in ours else "kernel"
        pattern[f"{ours}/{leaf}"] = (f"{block}{theirs}.weight", False)  # stored [in, out]
        pattern[f"{ours}/bias"] = (f"{block}{theirs}.bias", False)
    params = nested(
        {
            "embed/embedding": w["transformer.wte.weight"],
            "positions/embedding": w["transformer.wpe.weight"],
            "final_norm/scale": w["transformer.ln_f.weight"],
            "final_norm/bias": w["transformer.ln_f.bias"],
            **{f"blocks/{k}": v for k, v in (fused | stacked(w, pattern)).items()},
        }
    )
    config = nn.ModelConfig(
        num_layers=L,
        d_model=D,
        num_heads=N,
        vocab_size=V,
        context=T,
        norm="layer",
        norm_eps=1e-5,
        position="learned",
        activation="gelu_tanh",
        bias=True,
    )
    assert_equal_logits(config, params, reference)


LLAMA = {
    **{
        f"attention/{ours}/kernel": (f"model.layers.{{}}.self_attn.{theirs}_proj.weight", True)
        for ours, theirs in (("query", "q"), ("key", "k"), ("value", "v"), ("out", "o"))
    },
    **{
        f"mlp/{name}/kernel": (f"model.layers.{{}}.mlp.{name}_proj.weight", True)
        for name in ("up", "gate", "down")
    },
    "attention_norm/scale": ("model.layers.{}.input_layernorm.weight", False),
    "mlp_norm/scale": ("model.layers.{}.post_attention_layernorm.weight", False),
}
QWEN3 = LLAMA | {
    "attention/query_norm/scale": ("model.layers.{}.self_attn.q_norm.weight", False),
    "attention/key_norm/scale": ("model.layers.{}.self_attn.k_norm.weight", False),
}
SHAPE = {
    "vocab_size": V,
    "hidden_size": D,
    "intermediate_size": 48,
    "num_hidden_layers": L,
    "num_attention_heads": N,
    "num_key_value_heads": 2,
    "max_position_embeddings": T,
    "rms_norm_eps": 1e-6,
    "attn_implementation": "eager",
}


@pytest.mark.parametrize(
    ("family", "pattern", "head_dim", "tied"),
    [("Llama", LLAMA, 8, False), ("Llama", LLAMA, 8, True), ("Qwen3", QWEN3, 12, False)],
)
def test_grouped_rotary_families_give_the_same_logits(family, pattern, head_dim, tied):
    settings = getattr(transformers, f"{family}Config")(
        **SHAPE, head_dim=head_dim, tie_word_embeddings=tied
    )
    reference = getattr(transformers, f"{family}ForCausalLM")(settings).eval()
    w = weights_of(reference)
    params = nested(
        {
            "embed/embedding": w["model.embed_tokens.weight"],
            "final_norm/scale": w["model.norm.weight"],
            **({} if tied else {"readout": w["lm_head.weight"].T}),
            **{f"blocks/{name}": rows for name, rows in stacked(w, pattern).items()},
        }
    )
    config = nn.ModelConfig(
        num_layers=L,
        d_model=D,
        num_heads=N,
        num_kv_heads=2,
        head_dim=head_dim,
        d_mlp=48,
        vocab_size=V,
        context=T,
        activation="swiglu",
        tie_embeddings=tied,
        qk_norm=family == "Qwen3",
    )
    assert_equal_logits(config, params, reference)


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
