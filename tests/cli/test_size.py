"""What `jaxhpo size` counts, against published numbers and the compiler's own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import jaxhpo
from jaxhpo.cli.main import main
from jaxhpo.cli.size import SizeQuery
from jaxhpo.errors import UsageError
from jaxhpo.nn import sizes
from jaxhpo.nn.config import ModelConfig
from jaxhpo.nn.published import PUBLISHED

COUNTS = {
    "gpt2": 124_439_808,
    "gpt3": 174_604_259_328,
    "bloom-176b": 176_247_271_424,
    "llama-2-7b": 6_738_415_616,
    "llama-3-8b": 8_030_261_248,
    "llama-3-405b": 405_853_388_800,
}


@pytest.mark.parametrize("name", COUNTS)
def test_published_models_have_their_published_parameters(name: str) -> None:
    assert jaxhpo.size(name).parameters == COUNTS[name]


@pytest.mark.parametrize(
    ("name", "count"), [("minicpm-1.2b", 1_247_442_432), ("minicpm-2.4b", 2_442_057_984)]
)
def test_minicpm_has_its_published_parameters_beside_the_embedding(name: str, count: int) -> None:
    assert jaxhpo.size(name).beyond_embedding == count


def test_fewer_key_value_heads_have_the_known_parameters() -> None:
    from dataclasses import replace

    llama = PUBLISHED["llama-2-7b"].model
    known = {8: 5_933_109_248, 1: 5_698_228_224}
    for heads, count in known.items():
        assert sizes.count_parameters(replace(llama, num_kv_heads=heads)) == count


@pytest.mark.parametrize(
    ("name", "context", "operations"),
    [
        ("gpt3", 2048, 1.0765910e12),
        ("gpt2", 1024, 8.55146208e8),
        ("llama-2-7b", 4096, 4.6870450944e10),
    ],
)
def test_operations_per_token_are_those_of_the_papers(
    name: str, context: int, operations: float
) -> None:
    """The sources round N to four digits."""
    model = PUBLISHED[name].model
    found = sizes.flops_per_token(model, context)
    assert found == pytest.approx(operations, rel=2e-4)
    assert sizes.flops_per_token(model, context, recompute=True) == pytest.approx(found * 4 / 3)


def test_all_training_tokens_of_gpt3_take_the_known_operations() -> None:
    found = jaxhpo.size("gpt3", SizeQuery(tokens="300B"))
    assert 6 * 300e9 * found.parameters == pytest.approx(3.143e23, rel=1e-3)
    assert found.attention_share == pytest.approx(0.0277, rel=0.05)


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_parts_sum_to_the_whole(name: str) -> None:
    model = PUBLISHED[name].model
    assert sum(sizes.parts(model).values()) == sizes.count_parameters(model)


def test_the_cache_holds_shared_heads_once() -> None:
    grouped = PUBLISHED["llama-3-8b"].model
    assert sizes.cache_bytes_per_token(grouped) == 2 * 32 * 8 * 128 * 4


def test_time_and_chips_follow_from_operations_and_peak() -> None:
    found = jaxhpo.size("gpt2", SizeQuery(tokens="1e12", chip=("h100",), chips=8, utilisation=0.5))
    seconds = 1e12 * found.flops() / (8 * 989.4e12 * 0.5)
    (budget,) = found.budgets
    assert budget.days == pytest.approx(seconds / 86400)
    assert budget.fewest == 1


def test_a_model_too_large_for_a_chip_needs_several() -> None:
    (budget,) = jaxhpo.size("llama-3-70b", SizeQuery(chip=("h100",))).budgets
    state = jaxhpo.size("llama-3-70b").training.state
    assert budget.fewest is not None and budget.chips == budget.fewest
    assert budget.fewest * 80e9 > state > 10 * 80e9


@pytest.mark.parametrize("wanted", [3e6, 100e6, 7e9])
def test_shapes_that_fit_are_near_the_budget_and_allowed(wanted: float) -> None:
    from jaxhpo.study.size import fit

    like = ModelConfig(vocab_size=4096, activation="swiglu", num_heads=8, num_kv_heads=2)
    for shape in fit(wanted, like):
        assert sizes.count_parameters(shape) == pytest.approx(wanted, rel=0.1)
        assert shape.width_of_head == 64 and shape.num_heads == 4 * shape.kv_heads
        assert shape.vocab_size == 4096


def test_options_of_train_and_a_config_file_describe_a_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "model.toml"
    file.write_text("[model]\nd_model = 128\n")
    assert main(["size", "--config", str(file), "--model.num-layers", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["model"]["d_model"], found["model"]["num_layers"]) == (128, 3)
    model = ModelConfig(num_layers=3, d_model=128, vocab_size=256)
    assert found["parameters"]["total"] == sizes.count_parameters(model)


def test_an_option_changes_a_published_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["size", "llama-2-7b", "--model.num-kv-heads", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parameters"]["total"] == 5_698_228_224


def test_the_tables_name_every_part(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["size", "qwen2-0.5b"]) == 0
    text = capsys.readouterr().out
    for word in ("494,032,768", "token embedding", "moments", "with remat",
                 "cache of one token", "num_kv_heads", "tpu-v5p", "days"):  # fmt: skip
        assert word in text


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["lama-3-8b"], "lama-3-8b is no published model, run directory or folder; perhaps"),
        (["gpt2", "--tokens", "many"], "tokens=many; allowed: a number above 0, such as 100M"),
        (["gpt2", "--utilisation", "1.5"], "utilisation=1.5; allowed: above 0, up to 1"),
        (["gpt2", "--chip", "h900"], "chip=h900; allowed: a100, h100"),
        (["gpt2", "--chips", "0"], "chips=0; allowed: 1 or more"),
        (["--fit", "10"], "fit=10: no shape with heads of 64"),
        (["--fit", "1M", "--head-dim", "7"], "head_dim=7; allowed: an even number"),
        (["--model.d-modell", "7"], "perhaps you meant --model.d-model"),
    ],
)
def test_a_mistake_is_one_line(
    argv: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["size", *argv]) == 2
    shown = capsys.readouterr()
    assert says in shown.err and shown.err.count("\n") == 1 and not shown.out


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is not JSON"),
        ("[1]", "is not a table"),
        ('{"model_type": "t5"}', "model_type='t5'; allowed: bert, bloom, gpt2"),
        ('{"model_type": "gpt2", "n_layer": "x"}', "n_layer='x'; allowed: a whole number above 0"),
        ('{"model_type": "gpt2", "n_layer": 2, "n_embd": 30, "n_head": 4, "vocab_size": 9, '
         '"n_positions": 8}', "model.d_model=30 is not a multiple of"),
    ],
)  # fmt: skip
def test_a_config_that_is_not_understood_is_one_line(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UsageError, match=r"config\.json") as caught:
        jaxhpo.size(tmp_path)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_asking_for_a_size_loads_nothing_heavy() -> None:
    code = (
        "import sys; from jaxhpo.cli.main import main; main(['size', 'gpt2'])\n"
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'jax', 'flax', 'optax', 'orbax'}))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines()[-1] == "[]"
