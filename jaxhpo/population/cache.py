"""Compiled programs kept between runs."""

import os
import platform
import stat
from importlib.metadata import version
from pathlib import Path

import jax

from jaxhpo.errors import UsageError
from jaxhpo.population.config import ExecutionConfig


def use_compilation_cache(execution: ExecutionConfig) -> None:
    """Turns on JAX's persistent cache in the user's cache folder, unless told not to or told where.

    It holds native code: the folder is the user's alone, by jaxlib version and processor, and one
    that others may write to is refused.
    """
    if not execution.compilation_cache or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxhpo"
    folder = root / "programs" / f"{version('jaxlib')}-{platform.machine()}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return  # a cache that can't be had is no reason not to run
    for part in (root, folder):
        if part.stat().st_mode & stat.S_IWOTH:
            raise UsageError(
                f"{part} can be written by anybody and holds programs; run `chmod o-w {part}`"
            )
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
