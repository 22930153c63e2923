"""The processes of a run become one JAX program, before its backend starts."""

import os
import sys
from typing import Any

import jax

from jaxhpo.errors import UsageError
from jaxhpo.population.config import DistributedConfig
from jaxhpo.population.launchers import joins, launched


def join(config: DistributedConfig) -> None:
    """Joins the processes of a run where there are several; does nothing where it is done.

    What a launcher says (Slurm, Open MPI, GKE, GCE TPU, Kubernetes) JAX reads itself. A process
    that finds no other within `timeout_seconds` is ended by JAX (SIGABRT), and so are all others
    `heartbeat_seconds` after one was lost. Raises UsageError for what is missing or contradicts.
    """
    if jax.distributed.is_initialized() or not joins(config):
        return
    number, count = config.process_id, config.num_processes
    if count is not None and number is not None and number >= count:
        raise UsageError(
            f"distributed.process_id={number} of num_processes={count}; allowed: 0 to {count - 1}"
        )
    explicit = config.auto is False or None not in (config.coordinator_address, count, number)
    named: dict[str, Any] = {
        "coordinator_address": config.coordinator_address,
        "num_processes": count or _step_tasks(),
        "process_id": number,
    }
    _say(config)
    try:
        jax.distributed.initialize(
            **named,
            cluster_detection_method="deactivate" if explicit else None,
            initialization_timeout=config.timeout_seconds,
            heartbeat_timeout_seconds=config.heartbeat_seconds,
            shutdown_timeout_seconds=config.timeout_seconds,
        )
    except ValueError as error:
        missing = ", ".join(f"distributed.{name}" for name, value in named.items() if value is None)
        raise UsageError(
            f"no launcher that JAX knows says {missing or 'what is missing'} ({error}); give "
            "--distributed.coordinator-address HOST:PORT --distributed.num-processes N "
            "--distributed.process-id I"
        ) from None
    except RuntimeError as error:
        reason = next(iter(str(error).splitlines()), "")
        raise UsageError(f"the processes of the run can't be joined: {reason[:300]}") from None


def _step_tasks() -> int | None:
    """Tasks of a Slurm step that are not those of its allocation, which JAX would wait for."""
    return launched() if "SLURM_STEP_NUM_TASKS" in os.environ else None


def _say(config: DistributedConfig) -> None:
    """What is waited for, as JAX ends a process that waits in vain without a word of ours."""
    me = "" if config.process_id is None else f" as process {config.process_id}"
    where = "" if config.coordinator_address is None else f" at {config.coordinator_address}"
    count = config.num_processes or launched()
    print(
        f"jaxhpo: joining {count if count > 1 else 'the'} processes{where}{me}, for up to "
        f"{config.timeout_seconds} s",
        file=sys.stderr,
    )
