"""The walls between the rooms, read from the source: who imports whom, and what nobody does."""

import ast
import functools
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "jaxhpo"
FLOORS = {
    "schedules": 0, "optimizers": 0, "nn": 0, "adapters": 0,
    "population": 1, "search": 1, "record": 1, "data": 1, "pretrained": 1,
    "config": 2, "study": 2, "analysis": 2,
    "cli": 3, "report": 3,
}  # fmt: skip
BESIDE = {
    ("optimizers", "schedules"), ("adapters", "nn"), ("study", "config"), ("analysis", "study"),
    ("cli", "report"),
}  # fmt: skip
EVERYONES = {"errors", "_lazy"}
DEVICE = {"jax", "jaxlib", "flax", "optax", "orbax", "chex"}
HOST_ONLY = ("report/", "search/", "config/", "cli/", "record/log.py", "record/history.py")
COMPILED = {"jit", "pmap", "shard_map", "Mesh", "make_mesh", "vmap"}
CODE_FROM_DATA = {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml", "runpy"}
EVALUATES = {"eval", "exec", "compile", "__import__"}
TABLES_OF_MODULES = {"_lazy.py", "cli/main.py", "data/known.py"}
"""Files that import by a name from a table in the source."""

FILES = {str(path.relative_to(PACKAGE)): path for path in sorted(PACKAGE.rglob("*.py"))}
files = pytest.mark.parametrize("name", FILES)


@functools.cache
def tree(name: str) -> ast.Module:
    return ast.parse(FILES[name].read_text())


@functools.cache
def imports(name: str) -> list[str]:
    """Dotted names that a file imports, at its top or late."""
    found: list[str] = []
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name}:{node.lineno} imports relatively"
            module = node.module or ""
            found += [f"jaxhpo.{a.name}" for a in node.names] if module == "jaxhpo" else [module]
    return found


@files
def test_imports_point_down(name: str) -> None:
    room = name.partition("/")[0]
    if "/" not in name:
        return
    assert room in FLOORS, f"{room} is a room without a floor"
    for module in imports(name):
        other = module.split(".")[1] if module.startswith("jaxhpo.") else room
        if other not in EVERYONES and other != room and (room, other) not in BESIDE:
            assert FLOORS[other] < FLOORS[room], f"{name} must not import {module}"


@files
def test_configs_import_the_standard_library_only(name: str) -> None:
    allowed = sys.stdlib_module_names | {"jaxhpo"}
    for module in imports(name):
        if name.endswith("/config.py"):
            assert module.split(".")[0] in allowed, f"{name} imports {module}"
            assert not module.startswith("jaxhpo") or module == "jaxhpo.errors"
        elif name.startswith("config/"):
            assert module.split(".")[0] in allowed, f"{name} imports {module}"
            parts = module.split(".")
            own = parts[0] != "jaxhpo" or parts[1] in EVERYONES | {"config"}
            assert own or parts[2:] == ["config"], f"{name} imports {module}"


@files
def test_the_host_never_imports_jax(name: str) -> None:
    if name.startswith(HOST_ONLY):
        assert not DEVICE & {module.split(".")[0] for module in imports(name)}


@files
def test_only_the_population_compiles_and_maps_members(name: str) -> None:
    if name.startswith("population/"):
        return
    # a vmap on floor 0 is over heads or layers: it has never seen a member
    floor_0 = FLOORS.get(name.partition("/")[0]) == 0
    words: set[str] = set()
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Attribute):
            words.add(node.attr)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in DEVICE:
            words |= {alias.name for alias in node.names}
    assert not words & (COMPILED - ({"vmap"} if floor_0 else set()))


@files
def test_no_code_comes_from_data(name: str) -> None:
    assert not CODE_FROM_DATA & {module.split(".")[0] for module in imports(name)}
    for node in ast.walk(tree(name)):
        if not isinstance(node, ast.Call):
            continue
        called = getattr(node.func, "id", None)
        assert called not in EVALUATES, f"{name}:{node.lineno} calls {called}"
        loads = getattr(node.func, "attr", called) == "import_module"
        assert not loads or name in TABLES_OF_MODULES, f"{name}:{node.lineno} imports by name"
        for keyword in node.keywords:
            risky = keyword.arg in ("allow_pickle", "trust_remote_code", "weights_only")
            value = getattr(keyword.value, "value", None)
            assert not risky or value is (keyword.arg == "weights_only"), f"{name}:{node.lineno}"
