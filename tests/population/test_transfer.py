"""Host arrays to the devices of a mesh and back: rows stay the bits they are."""

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxhpo.errors import UsageError
from jaxhpo.population import transfer
from jaxhpo.population.mesh import evenly, make_mesh

ODD = np.array([-0.0, np.nan, np.inf], np.float32)


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return make_mesh(4)


def rows(mesh: Mesh) -> dict[str, jax.Array]:
    host = {
        "weights": np.tile(ODD, (8, 1)) * np.arange(1, 9, dtype=np.float32)[:, None],
        "half": np.arange(8).astype(jax.numpy.bfloat16),
        "mask": np.arange(16).reshape(8, 2) % 3 == 0,
        "step": np.arange(8, dtype=np.int32),
    }
    return jax.device_put(host, NamedSharding(mesh, PartitionSpec("member")))


def test_a_row_is_fetched_as_the_bits_it_is_by_one_process_or_by_several(mesh: Mesh) -> None:
    tree = rows(mesh)
    together = transfer._row_program(mesh)(tree, np.int32(5))  # what several processes call
    alone = transfer.fetch_row(tree, 5)
    for name, leaf in tree.items():
        wanted = np.asarray(leaf)[5].tobytes()
        assert alone[name].tobytes() == wanted and np.asarray(together[name]).tobytes() == wanted


def test_a_row_is_replaced_and_no_other_touched(mesh: Mesh) -> None:
    leaf = rows(mesh)["weights"]
    found = transfer.replace_row(leaf, 3, np.array([1, 2, 3], np.float32))
    wanted = np.array(leaf)
    wanted[3] = [1, 2, 3]
    np.testing.assert_array_equal(np.asarray(found), wanted)
    assert found.sharding == leaf.sharding


class Device:
    def __init__(self, process_index: int, number: int) -> None:
        self.process_index, self.number = process_index, number


def test_fewer_devices_than_there_are_are_taken_from_every_process() -> None:
    devices = [Device(process, number) for process in range(3) for number in range(4)]
    taken = evenly(devices, 7)
    assert [d.process_index for d in taken] == [0, 0, 0, 1, 1, 2, 2]
    assert evenly(devices, 12) == devices


def test_a_mesh_that_leaves_a_process_without_a_device_is_refused(monkeypatch) -> None:
    devices = [Device(process, number) for process in range(2) for number in range(2)]
    monkeypatch.setattr(jax, "devices", lambda: devices)
    with pytest.raises(UsageError, match=r"execution\.devices=1 leaves 1 of 2 processes without"):
        make_mesh(1)
