"""Folders that the transformers library wrote, read here: see make_folders.py."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from safetensors.numpy import load_file, save_file

from jaxhpo import nn, pretrained
from jaxhpo.errors import UsageError

FOLDERS = Path(__file__).parent / "folders"
FAMILIES = sorted(path.name for path in FOLDERS.iterdir())
WEIGHTS = "model.safetensors"


@pytest.fixture
def copy(tmp_path: Path):
    """A folder that a test may spoil."""

    def made(name: str) -> Path:
        return Path(shutil.copytree(FOLDERS / name, tmp_path / name))

    return made


def logits(found: pretrained.Pretrained, given: dict[str, np.ndarray]) -> np.ndarray:
    real = given.get("real")
    run = jax.jit(nn.apply, static_argnums=0)
    return np.asarray(
        run(
            found.config,
            found.params,
            given["tokens"],
            token_types=given.get("token_types"),
            real=None if real is None else real.astype(bool),
        )
    )


def change(folder: Path, **values: object) -> None:
    table = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**table, **values}))


def refused(folder: Path, **options) -> str:
    with pytest.raises(UsageError) as error:
        pretrained.load(folder, **options)
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", FAMILIES)
def test_a_folder_gives_the_logits_that_its_writer_gives(name):
    given = load_file(FOLDERS / name / "expected.safetensors")
    expected = given.pop("logits")
    found = logits(pretrained.load(FOLDERS / name), given)
    assert np.abs(expected).max() > 1.0
    real = given.get("real", np.ones_like(given["tokens"])).astype(bool)
    # float32 of two programs: about 5e-6 is seen
    np.testing.assert_allclose(found[real], expected[real], atol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_saved_loads_again_to_the_bit(name, tmp_path):
    found = pretrained.load(FOLDERS / name)
    special = found.special
    out = pretrained.save(
        tmp_path / "out", found.config, found.params, found.family, special=special
    )
    again = pretrained.load(out)
    assert (again.config, again.family) == (found.config, found.family)
    assert dict(again.special) == {key: value for key, value in special.items()}
    jax.tree.map(np.testing.assert_array_equal, again.params, found.params)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_parameters_are_those_that_the_model_has():
    for name in FAMILIES:
        found = pretrained.load(FOLDERS / name)
        wanted = jax.eval_shape(lambda found=found: nn.init(found.config, jax.random.key(0)))
        assert jax.tree.map(lambda x: (x.shape, x.dtype), found.params) == jax.tree.map(
            lambda x: (x.shape, x.dtype), wanted
        )


def test_bfloat16_rounds_all_but_the_norms():
    full, half = (
        pretrained.load(FOLDERS / "llama", dtype=dtype) for dtype in ("float32", "bfloat16")
    )
    assert half.config.param_dtype == "bfloat16"

    def check(path, rounded, exact):
        norm = "norm/" in jax.tree_util.keystr(path, simple=True, separator="/")
        kind = np.float32 if norm else ml_dtypes.bfloat16
        assert rounded.dtype == kind
        np.testing.assert_array_equal(rounded, np.asarray(exact).astype(kind))

    jax.tree_util.tree_map_with_path(check, half.params, full.params)


@pytest.mark.parametrize("name", ["gpt2", "llama", "roberta"])
def test_every_device_gets_its_part_and_the_parts_are_the_whole(name):
    mesh = Mesh(np.asarray(jax.devices()[:4]).reshape(2, 2), ("a", "b"), (AxisType.Auto,) * 2)

    def placement(path, shape):
        if path.endswith("kernel"):
            return NamedSharding(mesh, PartitionSpec(*[None] * (len(shape) - 2), "a", "b"))
        return NamedSharding(mesh, PartitionSpec("a") if shape[0] % 2 == 0 else PartitionSpec())

    whole = pretrained.load(FOLDERS / name).params
    split = pretrained.load(FOLDERS / name, sharding=placement).params
    jax.tree.map(np.testing.assert_array_equal, split, whole)
    kernel = split["blocks"]["mlp"]["up"]["kernel"]
    assert {shard.data.shape for shard in kernel.addressable_shards} == {
        (2, kernel.shape[1] // 2, kernel.shape[2] // 2)
    }


def test_each_device_reads_no_more_than_its_part(monkeypatch):
    from jaxhpo.pretrained import loading

    read = []
    plain = loading._Leaf.read

    def counted(leaf, index, shape):
        found = plain(leaf, index, shape)
        read.append((found.size, int(np.prod(shape))))
        return found

    monkeypatch.setattr(loading._Leaf, "read", counted)
    mesh = Mesh(np.asarray(jax.devices()[:2]), ("a",), (AxisType.Auto,))
    halves = lambda path, shape: NamedSharding(mesh, PartitionSpec(*[None] * (len(shape) - 1), "a"))
    pretrained.load(FOLDERS / "gpt2", sharding=halves)
    assert all(2 * part == whole for part, whole in read)
    read.clear()
    square = Mesh(np.asarray(jax.devices()[:4]).reshape(2, 2), ("a", "b"), (AxisType.Auto,) * 2)
    copies = lambda path, shape: NamedSharding(
        square, PartitionSpec(*[None] * (len(shape) - 1), "a")
    )
    pretrained.load(FOLDERS / "gpt2", sharding=copies)  # two devices have each half
    assert len(read) == 2 * len(nn.tensors(pretrained.read_shape(FOLDERS / "gpt2").model))


def test_a_shorter_context_gives_the_same_logits_within_it():
    for name in ("gpt2", "roberta", "llama", "mistral"):
        whole = pretrained.load(FOLDERS / name)
        short = pretrained.load(FOLDERS / name, context=5)
        assert short.config.context == 5 and short.config.window is None
        given = {"tokens": np.arange(4, 9)[None]}
        np.testing.assert_allclose(logits(short, given), logits(whole, given), atol=1e-5)


def test_a_folder_without_a_head_gives_states_and_is_refused_with_one(copy):
    folder = copy("llama")
    tensors = load_file(folder / WEIGHTS)
    tensors.pop("lm_head.weight")
    bare = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    save_file(bare, folder / WEIGHTS)
    assert "no tensor lm_head.weight" in refused(folder) and "head=none" in refused(folder)
    found = pretrained.load(folder, head="none")
    assert "readout" not in found.params
    expected = pretrained.load(FOLDERS / "llama")
    tokens = jnp.arange(4, 16)[None]
    np.testing.assert_array_equal(
        nn.states(found.config, found.params, tokens),
        nn.states(expected.config, expected.params, tokens),
    )


def test_names_of_old_files_are_known(copy):
    folder = copy("bert")
    tensors = load_file(folder / WEIGHTS)
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in tensors.items()
    }
    save_file(old, folder / WEIGHTS)
    jax.tree.map(
        np.testing.assert_array_equal,
        pretrained.load(folder).params,
        pretrained.load(FOLDERS / "bert").params,
    )


def test_pickled_weights_are_refused_with_the_way_to_convert_them(copy):
    folder = copy("bert")
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")
    message = refused(folder)
    assert "AutoModelForMaskedLM" in message and "safe_serialization=True" in message
    (folder / "pytorch_model.bin").unlink()
    assert "neither model.safetensors nor" in refused(folder)


def shards(folder: Path) -> list[Path]:
    """The folder's weights in three files and an index."""
    tensors = sorted(load_file(folder / WEIGHTS).items())
    places = {}
    for number in range(3):
        file = f"model-0000{number + 1}-of-00003.safetensors"
        save_file(dict(tensors[number::3]), folder / file)
        places |= {name: file for name, _ in tensors[number::3]}
    (folder / WEIGHTS).unlink()
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return sorted(folder.glob("model-*"))


def test_shards_are_one_model_and_a_missing_one_is_named(copy):
    folder = copy("qwen3")
    first, second, _ = shards(folder)
    jax.tree.map(
        np.testing.assert_array_equal,
        pretrained.load(folder).params,
        pretrained.load(FOLDERS / "qwen3").params,
    )
    shutil.copy(first, second)
    assert "has no tensor" in refused(folder) and second.name in refused(folder)
    second.write_bytes(b"\x08\0\0\0\0\0\0\0nonsense")
    assert f"{second.name} can't be read" in refused(folder)
    second.unlink()
    assert f"lacks {second.name}" in refused(folder)


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("../other.safetensors", "names '../other.safetensors'; allowed: files of the folder"),
        (7, "has no weight_map"),
        (None, "has no weight_map"),
    ],
)
def test_an_index_names_files_of_the_folder_only(place, says, copy):
    folder = copy("llama")
    shutil.copy(folder / WEIGHTS, folder.parent / "other.safetensors")
    shards(folder)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"lm_head.weight": place}}))
    assert says in refused(folder)


def spoilt(folder: Path, name: str, tensor: np.ndarray | None) -> None:
    tensors = load_file(folder / WEIGHTS)
    tensors[name] = tensor
    save_file({key: each for key, each in tensors.items() if each is not None}, folder / WEIGHTS)


def test_a_missing_tensor_and_a_wrong_shape_are_named(copy):
    folder = copy("llama")
    name = "model.layers.1.mlp.up_proj.weight"
    spoilt(folder, name, np.zeros((40, 30), np.float32))
    assert f"tensor {name} is (40, 30), and the config (40, 32)" in refused(folder)
    spoilt(folder, name, np.zeros((40, 32), np.int32))
    assert f"tensor {name} is I32; allowed: F64, F32, F16, BF16" in refused(folder)
    spoilt(folder, name, None)
    assert f"has no tensor {name}" in refused(folder)


def test_a_vocabulary_that_is_not_the_embeddings_is_refused(copy):
    folder = copy("gpt2")
    change(folder, vocab_size=70)
    message = refused(folder)
    assert "transformer.wte.weight is (64, 32), and the config (70, 32)" in message


def tokenizer(path: Path, words: int) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    engine = Tokenizer(models.WordLevel({f"w{i}": i for i in range(words)}, unk_token="w0"))
    engine.pre_tokenizer = pre_tokenizers.Whitespace()
    engine.save(str(path))


def test_a_tokenizer_fits_the_vocabulary_or_is_refused(copy, tmp_path):
    folder = copy("gpt2")
    assert pretrained.load(folder).tokenizer is None
    tokenizer(folder / "tokenizer.json", 64)
    found = pretrained.load(folder)
    assert found.tokenizer == folder / "tokenizer.json"
    out = pretrained.save(tmp_path / "out", found.config, found.params, tokenizer=found.tokenizer)
    assert (out / "tokenizer.json").read_bytes() == found.tokenizer.read_bytes()
    tokenizer(folder / "tokenizer.json", 65)
    assert "has ids up to 64, and the model has 64 tokens" in refused(folder)
    (folder / "tokenizer.json").write_text("{}")
    assert "tokenizer.json can't be read" in refused(folder)


@pytest.mark.parametrize(
    ("name", "values", "says"),
    [
        ("llama", {"model_type": "mamba"}, "model_type='mamba'; allowed: bert, bloom, gpt2"),
        ("llama", {"model_type": "minicpm"}, "can't be loaded; allowed: gpt2, llama, mistral"),
        ("llama", {"quantization_config": {"bits": 4}}, "full-precision weights"),
        ("llama", {"hidden_act": "relu"}, "hidden_act='relu'; allowed: \"silu\""),
        ("llama", {"rope_parameters": {"rope_type": "longrope"}}, "rope_type='longrope'; allowed"),
        ("llama", {"rope_parameters": {"rope_type": ["x"]}}, "rope_type=['x']; allowed"),
        ("llama", {"rope_parameters": 3}, "rope_parameters=3; allowed: a table"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5; allowed: 1.0"),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1,
                   "layer_types": None}, "one kind in all layers"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "allowed: false"),
        ("bert", {"is_decoder": True}, "is_decoder=True; allowed: false"),
        ("roberta", {"hidden_act": "gelu_new"}, "hidden_act='gelu_new'; allowed: \"gelu\""),
        ("roberta", {"pad_token_id": "x"}, "pad_token_id='x'; allowed: a whole number"),
        ("bert", {"num_hidden_layers": -1}, "num_hidden_layers=-1; allowed: a whole number"),
    ],
)  # fmt: skip
def test_what_can_not_be_computed_is_refused(name, values, says, copy):
    folder = copy(name)
    change(folder, **values)
    assert says in refused(folder)


def test_a_context_beyond_the_models_own_is_refused():
    assert "context=64; allowed: 1 to the model's own, 32" in refused(FOLDERS / "gpt2", context=64)
