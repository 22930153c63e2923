"""What fine-tuning leaves on disk, loaded by transformers and by PEFT: the same logits."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxhpo import nn
from jaxhpo.cli.export import export
from jaxhpo.study.weights import load
from tests.study.test_finetuned_models import folder, tuned

transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

TOKENS = np.arange(3, 15)[None]

__all__ = ["folder"]


def ours(run: Path) -> np.ndarray:
    trained = load(run)
    params = jax.tree.map(jnp.asarray, trained.params)
    return np.asarray(nn.apply(trained.model, params, jnp.asarray(TOKENS)))


def theirs(model) -> np.ndarray:
    with torch.no_grad():
        return model.eval()(torch.tensor(TOKENS)).logits.numpy()


def test_a_merged_export_has_the_runs_logits_in_transformers(folder: Path, tmp_path: Path) -> None:
    run = tuned(folder, "lora")
    written = export(run, tmp_path / "merged")
    model = transformers.AutoModelForCausalLM.from_pretrained(written)
    # float32 on both sides: max difference under 1e-4, as the issue asks
    np.testing.assert_allclose(theirs(model), ours(run), atol=1e-4)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(written / "tokenizer.json"))
    assert tokenizer("w3 w5")["input_ids"] == [6, 8]


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_the_best_adapter_has_the_runs_logits_in_peft(folder: Path) -> None:
    peft = pytest.importorskip("peft")
    run = tuned(folder, "lora")
    base = transformers.AutoModelForCausalLM.from_pretrained(folder / "base")
    before = theirs(base)
    model = peft.PeftModel.from_pretrained(base, run / "best" / "adapter")
    found = theirs(model)
    assert np.abs(found - before).max() > 1e-3
    np.testing.assert_allclose(found, ours(run), atol=1e-4)
