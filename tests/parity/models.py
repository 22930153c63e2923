"""Random models of the reference library, and their weights as ours."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxhpo import nn

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

V, D, L, N, T = 61, 32, 3, 4, 16
GPT2 = {"vocab_size": V, "n_embd": D, "n_layer": L, "n_head": N, "n_positions": T}


def weights_of(model):
    """Random weights by name, norms and biases included: at their initial values they hide."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.normal_(0.0, 0.2)
            if "norm" in name.lower() or "ln_" in name:
                weight.add_(1.0)
    return {name: weight.detach().numpy() for name, weight in model.named_parameters()}


def stacked(weights, pattern, layers=L):
    """Rows [L, ...] of every parameter that `pattern` (parameter -> name with {}) describes."""

    def rows(name, transposed):
        found = [weights[name.format(i)] for i in range(layers)]
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


def gpt2(**sizes):
    """A random GPT-2: (our config, our parameters, the reference)."""
    reference = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(**{**GPT2, **sizes}, attn_implementation="eager")
    ).eval()
    w = weights_of(reference)
    shape = reference.config
    fused = {}
    for name in ("weight", "bias"):
        rows = np.stack([w[f"transformer.h.{i}.attn.c_attn.{name}"] for i in range(shape.n_layer)])
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
            **{f"blocks/{k}": v for k, v in (fused | stacked(w, pattern, shape.n_layer)).items()},
        }
    )
    config = nn.ModelConfig(
        num_layers=shape.n_layer,
        d_model=shape.n_embd,
        num_heads=shape.n_head,
        vocab_size=shape.vocab_size,
        context=shape.n_positions,
        norm="layer",
        norm_eps=1e-5,
        position="learned",
        activation="gelu_tanh",
        bias=True,
    )
    return config, params, reference


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


def grouped(family, head_dim=8, tied=False, **sizes):
    """A random Llama or Qwen3: (our config, our parameters, the reference)."""
    pattern = {"Llama": LLAMA, "Qwen3": QWEN3}[family]
    settings = getattr(transformers, f"{family}Config")(
        **{**SHAPE, **sizes}, head_dim=head_dim, tie_word_embeddings=tied
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
        vocab_size=settings.vocab_size,
        context=settings.max_position_embeddings,
        activation="swiglu",
        tie_embeddings=tied,
        qk_norm=family == "Qwen3",
    )
    return config, params, reference
