"""Writes the folders beside this file: random checkpoints as the transformers library writes them,
and the logits that it gives. `python -m tests.pretrained.make_folders`; needs torch."""

import json
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.numpy import save_file

HERE = Path(__file__).parent / "folders"
ROTARY = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32,
}  # fmt: skip
ENCODER = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 32,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 16,
}  # fmt: skip
CAUSAL, MASKED = "ForCausalLM", "ForMaskedLM"
FOLDERS = {
    "gpt2": (
        "GPT2",
        "LMHeadModel",
        {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32},
    ),
    "llama": ("Llama", CAUSAL, {**ROTARY, "rope_parameters": LLAMA3}),
    "mistral": ("Mistral", CAUSAL, {**ROTARY, "sliding_window": 5}),
    "qwen2": ("Qwen2", CAUSAL, {**ROTARY, "tie_word_embeddings": True}),
    "qwen3": ("Qwen3", CAUSAL, {**ROTARY, "head_dim": 16}),
    "bert": ("Bert", MASKED, ENCODER),
    "roberta": (
        "Roberta",
        MASKED,
        {**ENCODER, "max_position_embeddings": 34, "type_vocab_size": 1},
    ),
}
"""Folder -> family, head and config."""


def random_model(family: str, head: str, **config):
    """A model in evaluation mode whose every weight matters."""
    settings = getattr(transformers, f"{family}Config")(
        **{"bos_token_id": 2, "eos_token_id": 3, **config}, attn_implementation="eager"
    )
    model = getattr(transformers, f"{family}{head}")(settings).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.normal_(0.0, 0.2)
            if "norm" in name.lower() or "ln_" in name:
                weight.add_(1.0)
    return model


def inputs(family: str) -> dict[str, np.ndarray]:
    """Two rows of tokens; those of encoders are padded, with ids of 0 or 1, and BERT's have two
    segments."""
    found = {"tokens": np.random.default_rng(0).integers(4, 64, (2, 12))}
    if family in ("Bert", "Roberta"):
        found["real"] = np.arange(12) < np.array([[12], [7]])
        found["tokens"] = np.where(found["real"], found["tokens"], int(family == "Roberta"))
        kinds = 2 if family == "Bert" else 1
        found["token_types"] = np.where(np.arange(12) < 4, 0, kinds - 1) + np.zeros((2, 1), int)
    return found


def logits(model, given: dict[str, np.ndarray]) -> torch.Tensor:
    names = {"tokens": "input_ids", "real": "attention_mask", "token_types": "token_type_ids"}
    told = {names[name]: torch.tensor(values).long() for name, values in given.items()}
    return model(**told).logits


def main() -> None:
    for name, (family, head, config) in FOLDERS.items():
        model = random_model(family, head, **config)
        model.save_pretrained(HERE / name)
        (HERE / name / "generation_config.json").unlink(missing_ok=True)
        given = inputs(family)
        with torch.no_grad():
            expected = logits(model, given).numpy()
        arrays = {key: np.asarray(values, np.int32) for key, values in given.items()}
        save_file({**arrays, "logits": expected}, HERE / name / "expected.safetensors")
        path = HERE / name / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()), indent=1) + "\n")


if __name__ == "__main__":
    main()
