"""Devices, caches and strictness for every test: set before JAX starts."""

import gc
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ.setdefault("PJRT_NPROC", "2")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # small matrices: threads only wait, busily
os.environ.setdefault("JAX_PLATFORMS", "cpu")
_cache = Path(os.environ.get("XDG_CACHE_HOME", tempfile.gettempdir())) / "jaxhpo-test-compilation"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_cache))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
os.environ.setdefault("WANDB_MODE", "offline")

# Tracing makes a million small objects that live on: looking through them is 5% of the time.
gc.set_threshold(50_000, 20, 20)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--mutants", action="store_true", help="break promises, see tests turn red")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The mutants run only when asked for: each starts a test session of its own."""
    if collection_path.name == "mutants" and not config.getoption("--mutants"):
        return True
    return None


ROOM = 3 * 2**30
"""Bytes that a test process may hold; compiled programs add up to more than twice that."""


@pytest.fixture(scope="module", autouse=True)
def _programs_make_room() -> Iterator[None]:
    """Compiled programs are let go of after a file that leaves the process too large."""
    yield
    jax, status = sys.modules.get("jax"), Path("/proc/self/statm")
    if jax is not None and status.exists():
        resident = int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        if resident > ROOM:
            jax.clear_caches()
            if compilations := sys.modules.get("tests.compilations"):
                compilations.LOWERED.clear()
