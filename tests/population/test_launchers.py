"""When processes are joined: what launchers say in their own variables, and what a person says."""

from typing import Any

import jax
import pytest

from jaxhpo.errors import UsageError
from jaxhpo.population import launchers
from jaxhpo.population.config import DistributedConfig, ExecutionConfig, prepare_backend
from jaxhpo.population.joining import join
from jaxhpo.population.launchers import joins, launched, processes

SLURM = {
    "SLURM_JOB_ID": "9",
    "SLURM_STEP_NODELIST": "node[1-2]",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
}


@pytest.mark.parametrize(
    ("environment", "count"),
    [
        ({}, 1),
        (SLURM, 4),
        ({**SLURM, "SLURM_STEP_NUM_TASKS": "1"}, 1),  # a shell inside an allocation
        ({name: SLURM[name] for name in ("SLURM_JOB_ID", "SLURM_NTASKS")}, 1),  # no srun
        ({"OMPI_COMM_WORLD_SIZE": "2"}, 2),
        ({"TPU_WORKER_HOSTNAMES": "a,b,c"}, 3),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, 1),
        ({"TPU_WORKER_HOSTNAMES": "a,b", "MEGASCALE_NUM_SLICES": "2"}, 4),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "3"}, 1),
    ],
)
def test_a_launcher_says_how_many_processes_it_started(
    environment: dict[str, str], count: int
) -> None:
    assert launched(environment) == count
    assert joins(DistributedConfig(), environment) == (count > 1)
    assert not joins(DistributedConfig(auto=False), environment)
    assert joins(DistributedConfig(auto=True), environment)


def test_a_tpu_host_asks_the_metadata_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launchers, "_on_tpu", lambda environ: True)
    monkeypatch.setattr(launchers, "_metadata", lambda name: "a:b:10.0.0.1,a:b:10.0.0.2")
    assert launched({}) == 2
    monkeypatch.setattr(launchers, "_metadata", lambda name: None)
    assert launched({}) == 1


def test_each_process_makes_its_share_of_the_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLA_FLAGS", "")
    two = DistributedConfig(coordinator_address="a:1", num_processes=2, process_id=0)
    prepare_backend(ExecutionConfig(devices=6), 12, processes(two))
    import os

    assert os.environ["XLA_FLAGS"] == "--xla_force_host_platform_device_count=3"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"process_id": 2, "num_processes": 2}, "distributed.process_id=2 of num_processes=2"),
        ({"num_processes": 2}, "distributed.coordinator_address, distributed.process_id"),
        ({"auto": True}, "--distributed.coordinator-address HOST:PORT"),
    ],
)
def test_what_is_missing_is_said_in_one_line(
    options: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(**_: Any) -> None:
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", refusing)
    with pytest.raises(UsageError) as caught:
        join(DistributedConfig(**options))
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_process_alone_joins_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax.distributed, "initialize", lambda **_: pytest.fail("joined"))
    join(DistributedConfig())
    join(DistributedConfig(auto=False))
