"""The tensors of a folder: one safetensors file, or several with an index; read slice by slice."""

from pathlib import Path
from typing import Any

from jaxhpo.errors import UsageError
from jaxhpo.pretrained.config_json import read_table
from jaxhpo.pretrained.names import UNTIED_BIASES

WEIGHTS_FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"
MOST_INDEX_BYTES = 64 << 20
DTYPES = ("F64", "F32", "F16", "BF16")
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
OLD_NAMES = {
    "LayerNorm.weight": "LayerNorm.gamma",
    "LayerNorm.bias": "LayerNorm.beta",
    **UNTIED_BIASES,
    **{untied: tied for tied, untied in UNTIED_BIASES.items()},
}
"""End of a name -> what it is in old folders, which had one of two equal biases."""


class Weights:
    """Tensors by name. Nothing is read before it is asked for, and then no more than that.

    Raises UsageError where the folder has no safetensors, a shard is missing or a file is damaged.
    """

    def __init__(self, folder: Path, head: str) -> None:
        self.folder = folder
        if (folder / WEIGHTS_FILE).is_file():
            self.files = {WEIGHTS_FILE: _opened(folder / WEIGHTS_FILE)}
            places = dict.fromkeys(self.files[WEIGHTS_FILE].keys(), WEIGHTS_FILE)
        elif (folder / INDEX).is_file():
            places = _places(folder)
            self.files = {file: _opened(folder / file) for file in sorted(set(places.values()))}
            inside = {file: set(opened.keys()) for file, opened in self.files.items()}
            for name, file in places.items():
                if name not in inside[file]:
                    raise UsageError(f"{folder / file} has no tensor {name}, as {INDEX} says")
        else:
            raise UsageError(_no_weights(folder, head))
        self.places = places

    def name(self, name: str) -> str | None:
        """The name under which a tensor is there, new or old, or None."""
        ends = [old for new, old in OLD_NAMES.items() if name.endswith(new)]
        stems = [name[: -len(new)] for new in OLD_NAMES if name.endswith(new)]
        older = [stem + end for stem, end in zip(stems, ends, strict=True)]
        return next((each for each in (name, *older) if each in self.places), None)

    def slices(self, name: str) -> Any:
        """A tensor whose parts are read when it is indexed. Raises UsageError if it is absent or
        holds no floating-point numbers."""
        found = self.name(name)
        if found is None:
            raise UsageError(f"{self.folder} has no tensor {name}")
        tensor = self.files[self.places[found]].get_slice(found)
        if tensor.get_dtype() not in DTYPES:
            raise UsageError(
                f"{self.folder}: tensor {found} is {tensor.get_dtype()}; allowed: "
                f"{', '.join(DTYPES)}"
            )
        return tensor


def _places(folder: Path) -> dict[str, str]:
    """Tensor -> file, of an index whose files are all there."""
    table = read_table(folder / INDEX, MOST_INDEX_BYTES).get("weight_map")
    if not isinstance(table, dict) or not all(isinstance(v, str) for v in table.values()):
        raise UsageError(f"{folder / INDEX} has no weight_map of tensors and files")
    for file in sorted(set(table.values())):
        if Path(file).name != file:
            raise UsageError(f"{folder / INDEX} names {file!r}; allowed: files of the folder")
        if not (folder / file).is_file():
            raise UsageError(f"{folder} lacks {file}, one of the shards that {INDEX} names")
    return table


def _opened(path: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, "np")
    except (OSError, SafetensorError) as error:
        raise UsageError(f"{path} can't be read: {error}") from None


def _no_weights(folder: Path, head: str) -> str:
    if not any(found for pattern in PICKLED for found in folder.glob(pattern)):
        return f"{folder} has neither {WEIGHTS_FILE} nor {INDEX}"
    return (
        f"{folder} has pickled weights only, which can run code and are not read; convert them "
        f'where you trust them: python -c "import transformers as t; t.{head}.from_pretrained('
        f"r'{folder}').save_pretrained(r'{folder}', safe_serialization=True)\""
    )
