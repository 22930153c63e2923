"""Whether a launcher has started several processes, read from its own variables; no JAX needed."""

import importlib.util
import os
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from jaxhpo.population.config import DistributedConfig

_SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
_METADATA = "http://metadata.google.internal/computeMetadata/v1/instance/attributes/"
_METADATA_SECONDS = 2


def joins(config: DistributedConfig, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is one of several: told so, or its launcher says so."""
    given = (config.coordinator_address, config.num_processes, config.process_id)
    if config.auto is not None:
        return config.auto or given != (None, None, None)
    return given != (None, None, None) or launched(environ) > 1


def processes(config: DistributedConfig, environ: Mapping[str, str] = os.environ) -> int:
    """How many processes make the run, as far as can be told before they have met."""
    if not joins(config, environ):
        return 1
    return config.num_processes or (1 if config.auto is False else launched(environ))


def launched(environ: Mapping[str, str] = os.environ) -> int:
    """Processes that a launcher says it has started: Slurm, Open MPI, GKE or a GCE TPU pod; else 1.

    A Kubernetes job does not say it: there `distributed.auto` must be given.

    >>> launched({"OMPI_COMM_WORLD_SIZE": "4"}), launched({})
    (4, 1)
    """
    if all(name in environ for name in _SLURM):
        # a step of an allocation may have fewer tasks than the allocation
        return int(environ.get("SLURM_STEP_NUM_TASKS", environ["SLURM_NTASKS"]))
    if "OMPI_COMM_WORLD_SIZE" in environ:
        return int(environ["OMPI_COMM_WORLD_SIZE"])
    workers = environ.get("TPU_PROCESS_ADDRESSES") or environ.get("TPU_WORKER_HOSTNAMES")
    if workers is None and _on_tpu(environ):
        workers = _metadata("worker-network-endpoints")
    slices = int(environ.get("MEGASCALE_NUM_SLICES") or 1)
    return slices * len(workers.split(",")) if workers else 1


def _on_tpu(environ: Mapping[str, str]) -> bool:
    """Whether this is a TPU host of GCE: the chips are there, and so is their library."""
    if "TPU_SKIP_MDS_QUERY" in environ or importlib.util.find_spec("libtpu") is None:
        return False
    return any(Path("/dev").glob("accel*")) or any(Path("/dev/vfio").glob("[0-9]*"))


def _metadata(name: str) -> str | None:
    asked = urllib.request.Request(_METADATA + name, headers={"Metadata-Flavor": "Google"})
    try:
        with urllib.request.urlopen(asked, timeout=_METADATA_SECONDS) as answer:
            return answer.read().decode()
    except OSError:
        return None
