"""Parameter counts against the reference library's models, built without memory."""

import json

import pytest

from jaxhpo.nn.sizes import count_parameters
from jaxhpo.pretrained.shapes import read_shape
from tests.parity.models import torch, transformers

LLAMA = {
    "num_hidden_layers": 3, "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 96, "vocab_size": 200, "max_position_embeddings": 32,
}  # fmt: skip
ENCODER = {
    "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 96,
    "vocab_size": 200, "max_position_embeddings": 34,
}  # fmt: skip
CONFIGS = {
    "GPT2": {"n_layer": 2, "n_embd": 48, "n_head": 4, "vocab_size": 100, "n_positions": 16},
    "GPT2-wide": {"n_layer": 1, "n_embd": 48, "n_head": 4, "n_inner": 64},
    "Bloom": {"n_layer": 3, "hidden_size": 64, "n_head": 4, "vocab_size": 90},
    "Llama": LLAMA,
    "Llama-tied": {**LLAMA, "tie_word_embeddings": True, "head_dim": 8},
    "Llama-biased": {**LLAMA, "attention_bias": True, "mlp_bias": True},
    "Mistral": LLAMA,
    "Qwen2": LLAMA,
    "Qwen2-tied": {**LLAMA, "tie_word_embeddings": True},
    "Qwen3": {**LLAMA, "head_dim": 32},
    "Bert": ENCODER,
    "Roberta": {**ENCODER, "type_vocab_size": 1},
    "Qwen3-biased": {**LLAMA, "head_dim": 16, "attention_bias": True},
}


def counted(config):
    encoder = config.model_type in ("bert", "roberta")
    kind = transformers.AutoModelForMaskedLM if encoder else transformers.AutoModelForCausalLM
    with torch.device("meta"):
        model = kind.from_config(config)
    return sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize("name", CONFIGS)
def test_a_folder_has_the_parameters_of_its_model(name, tmp_path):
    config = getattr(transformers, f"{name.partition('-')[0]}Config")(**CONFIGS[name])
    config.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] in name.lower()
    shape = read_shape(tmp_path)
    assert count_parameters(shape.model) + sum(shape.beside.values()) == counted(config)


def published_config(name):
    """The reference library's config of a published model of ours."""
    from jaxhpo.nn.published import PUBLISHED

    model = PUBLISHED[name].model
    if name.startswith("gpt2"):
        return transformers.GPT2Config(
            n_layer=model.num_layers, n_embd=model.d_model, n_head=model.num_heads,
            n_positions=model.context, vocab_size=model.vocab_size,
        )  # fmt: skip
    if name.startswith("bloom"):
        return transformers.BloomConfig(
            n_layer=model.num_layers, hidden_size=model.d_model, n_head=model.num_heads,
            vocab_size=model.vocab_size,
        )  # fmt: skip
    family = {"llama": "Llama", "mistra": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}
    kind = next(kind for word, kind in family.items() if name.startswith(word))
    extra = {"head_dim": model.head_dim} if model.head_dim else {}
    return getattr(transformers, f"{kind}Config")(
        num_hidden_layers=model.num_layers, hidden_size=model.d_model,
        num_attention_heads=model.num_heads, num_key_value_heads=model.kv_heads,
        intermediate_size=model.mlp_width, vocab_size=model.vocab_size,
        max_position_embeddings=model.context, tie_word_embeddings=model.tie_embeddings, **extra,
    )  # fmt: skip


@pytest.mark.parametrize(
    "name", ["gpt2-xl", "bloom-176b", "llama-3-8b", "llama-3.2-1b", "mistral-7b", "qwen2-1.5b",
             "qwen2.5-7b", "qwen3-0.6b", "qwen3-8b"],
)  # fmt: skip
def test_published_shapes_have_the_parameters_of_the_models_of_that_name(name):
    from jaxhpo.nn.published import PUBLISHED

    shape = PUBLISHED[name]
    assert count_parameters(shape.model) + sum(shape.beside.values()) == counted(
        published_config(name)
    )
