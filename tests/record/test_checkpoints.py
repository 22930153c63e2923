"""Checkpoints: exact, verified, never half there."""

import functools
import os
import shutil
import subprocess
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxhpo.errors import UsageError
from jaxhpo.record import CheckpointConfig, CheckpointError, RunDirectory, Store
from jaxhpo.record import arrays as arrays_


@pytest.fixture
def run(tmp_path):
    run = RunDirectory.create(tmp_path / "run")
    with run.lock():
        yield run


def sharding(devices=2):
    mesh = jax.make_mesh(
        (devices,),
        ("member",),
        axis_types=(jax.sharding.AxisType.Auto,),
        devices=jax.devices()[:devices],
    )
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("member"))


def host_state(seed=0):
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2**16, (8, 6), dtype=np.uint16)
    floats = rng.normal(size=(8, 5, 3)).astype(np.float32)
    floats[0, 0] = [np.nan, np.inf, -0.0]
    return {
        "params": {"w": floats, "half": np.asarray(jnp.asarray(bits).view(jnp.bfloat16))},
        "moments": (rng.normal(size=(8, 4)).astype(np.float32), np.zeros((8, 0), np.float32)),
        "step": np.arange(8, dtype=np.int32),
        "seen": rng.integers(0, 2, (8,)).astype(bool),
    }


def device_state(seed=0, devices=2):
    return jax.device_put(host_state(seed), sharding(devices))


def abstract(state, devices=2):
    place = sharding(devices)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), state)


def raw(state):
    return [
        (str(leaf.dtype), leaf.shape, np.asarray(leaf).tobytes()) for leaf in jax.tree.leaves(state)
    ]


def saved_run(run, indices=(0, 1)):
    with Store(run) as store:
        for index in indices:
            assert store.save(index, host_state(index), {"step": index}, wait=True)
    return run


def files(directory: Path):
    return sorted(path for path in directory.rglob("*") if path.is_file())


@pytest.mark.parametrize("devices", [2, 4])
def test_a_sharded_state_comes_back_to_the_bit_on_the_mesh_asked_for(run, devices):
    commits = []
    with Store(run, on_commit=lambda *commit: commits.append(commit)) as store:
        assert store.latest(abstract(host_state())) is None
        assert store.save(7, device_state(), {"seconds": 1.5, "note": "é"})
    restored = Store(run).latest(abstract(host_state(), devices))
    assert raw(restored.state) == raw(host_state())
    assert jax.tree.structure(restored.state) == jax.tree.structure(host_state())
    for leaf in jax.tree.leaves(restored.state):
        assert leaf.sharding == sharding(devices)
    assert (restored.index, restored.metadata) == (7, {"seconds": 1.5, "note": "é"})
    ((index, size, seconds, digest),) = commits
    assert (index, digest) == (7, restored.digest) and seconds > 0
    assert size == sum(path.stat().st_size for path in files(run.checkpoints / "00000007"))


@pytest.mark.parametrize("devices", [1, 2])
def test_a_state_donated_right_after_save_is_saved_as_it_was(run, devices, monkeypatch):
    @functools.partial(jax.jit, donate_argnums=0)
    def overwrite(state):
        return jax.tree.map(lambda x: x + jnp.ones((), x.dtype), state)

    def large():
        return {
            "w": jax.device_put(
                np.arange(2**20, dtype=np.float32).reshape(8, -1), sharding(devices)
            )
        }

    overwritten, write = threading.Event(), arrays_.write
    monkeypatch.setattr(arrays_, "write", lambda *args: (overwritten.wait(10), write(*args)))
    with Store(run) as store:
        state = overwrite(large())  # now in memory that XLA owns and reuses
        store.save(0, state)
        for _ in range(5):
            state = overwrite(state)
        jax.block_until_ready(state)
        overwritten.set()
    restored = Store(run).latest(abstract(large(), devices)).state
    expected = 1 + np.arange(2**20, dtype=np.float32).reshape(8, -1)
    assert np.array_equal(restored["w"], expected)
    assert np.array_equal(overwrite(restored)["w"], expected + 1)  # may be donated too


def test_what_is_being_saved_shares_no_memory_with_the_state():
    # JAX would have to give up donation, and hold the state twice, while a view is alive
    state = {"device": jnp.arange(8.0), "host": np.arange(8.0)}
    for name, copied in arrays_.host_copy(state).items():
        assert not np.shares_memory(copied, np.asarray(state[name]))


def test_a_second_save_is_skipped_while_one_runs_or_waits_when_asked(run, monkeypatch):
    free = threading.Event()
    write = arrays_.write
    monkeypatch.setattr(arrays_, "write", lambda *args: (free.wait(10), write(*args)))
    notes = []
    with Store(run, note=notes.append) as store:
        started = time.monotonic()
        assert store.save(0, host_state())
        assert store.busy and time.monotonic() - started < 1.0
        assert not store.save(1, host_state())
        assert notes == ["checkpoint 1 skipped: checkpoint 0 is being written"]
        free.set()
        assert store.save(2, host_state(), wait=True)
        assert not store.save(2, host_state(), wait=True)  # committed already
    assert Store(run).indices() == [0, 2]


def test_the_last_ones_and_the_pinned_ones_are_kept(run):
    with Store(run, CheckpointConfig(keep_last=2)) as store:
        store.pinned.add(1)
        for index in range(6):
            store.save(index, host_state(index), wait=True)
    assert sorted(os.listdir(run.checkpoints)) == ["00000001", "00000004", "00000005"]
    with Store(run) as store:
        store.discard_after(1)
    assert Store(run).indices() == [1]


def test_leftovers_of_a_killed_writer_are_removed_only_under_the_lock(run):
    saved_run(run)
    for name in ("tmp-00000009.123", "trash-00000000.77"):
        shutil.copytree(run.checkpoints / "00000001", run.checkpoints / name)
    Store(RunDirectory(run.path))  # a reader
    assert len(os.listdir(run.checkpoints)) == 4
    Store(run)
    assert sorted(os.listdir(run.checkpoints)) == ["00000000", "00000001"]


def test_foreign_names_and_symbolic_links_are_no_checkpoints(run, tmp_path):
    saved_run(run)
    shutil.copytree(run.checkpoints / "00000001", tmp_path / "elsewhere")
    (run.checkpoints / "00000077").symlink_to(tmp_path / "elsewhere")
    (run.checkpoints / "88").mkdir()
    (run.checkpoints / "00000099").touch()
    assert Store(run).indices() == [0, 1]
    assert Store(run).latest(abstract(host_state())).index == 1


def test_an_empty_folder_with_a_number_is_set_aside(run):
    saved_run(run)
    (run.checkpoints / "00000077").mkdir()
    restored = Store(run).latest(abstract(host_state()))
    assert restored.index == 1 and "MANIFEST.json is missing" in restored.skipped[0]
    assert (run.checkpoints / "00000077.corrupt").is_dir()


def test_another_shape_dtype_or_structure_is_refused_by_name(run):
    saved_run(run)
    wanted = abstract(host_state())
    other = {**wanted, "step": jax.ShapeDtypeStruct((8,), np.float32, sharding=sharding())}
    with pytest.raises(
        UsageError, match=r"step is int32\[8\] in the checkpoint and float32\[8\] here"
    ):
        Store(run).latest(other)
    del other["step"]
    with pytest.raises(UsageError, match=r"step is int32\[8\] in the checkpoint and absent here"):
        Store(run).latest(other)
    assert Store(run).indices() == [0, 1]  # not taken for corrupt


def test_every_truncated_or_deleted_file_is_noticed_and_the_one_before_is_used(run, tmp_path):
    saved_run(run)
    whole = tmp_path / "whole"
    shutil.copytree(run.checkpoints, whole)
    names = [path.relative_to(whole) for path in files(whole / "00000001")]
    assert len(names) >= 6
    for name in names:
        for damage in ("halve", "delete"):
            shutil.rmtree(run.checkpoints)
            shutil.copytree(whole, run.checkpoints)
            path = run.checkpoints / name
            size = path.stat().st_size
            if damage == "delete":
                path.unlink()
            else:
                os.truncate(path, size // 2)
            restored = Store(run).latest(abstract(host_state()))
            assert restored.index == 0, (name, damage)
            assert str(run.checkpoints / "00000001") in restored.skipped[0]
            assert (run.checkpoints / "00000001.corrupt").is_dir()
    assert raw(restored.state) == raw(host_state(0))


def test_no_flipped_bit_is_loaded(run, tmp_path):
    saved_run(run)
    rng = np.random.default_rng(5)
    arrays = max(files(run.checkpoints / "00000001"), key=lambda path: path.stat().st_size)
    others = files(run.checkpoints / "00000001")
    for trial in range(200):  # three of four in the arrays, which Orbax does not check
        path = arrays if trial % 4 else others[rng.integers(len(others))]
        whole = path.read_bytes()
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(damaged))
        reader = Store(RunDirectory(run.path))  # without the lock nothing is renamed
        restored = reader.latest(abstract(host_state()))
        assert restored.index == 0 and raw(restored.state) == raw(host_state(0))
        with pytest.raises(CheckpointError, match="00000001 is damaged"):
            reader.restore(1, abstract(host_state()))
        path.write_bytes(whole)
    assert raw(reader.latest(abstract(host_state())).state) == raw(host_state(1))


def test_a_run_never_starts_from_zero_by_itself(run):
    saved_run(run)
    for index in (0, 1):
        os.truncate(run.checkpoints / f"{index:08d}" / "MANIFEST.json", 10)
    for _ in range(2):  # the second time only .corrupt folders are left
        with pytest.raises(CheckpointError, match=r"no checkpoint in .* can be trusted"):
            Store(run).latest(abstract(host_state()))
    with pytest.raises(CheckpointError, match="has no checkpoint 1; there are: none"):
        Store(run).restore(1, abstract(host_state()))


def test_a_checkpoint_of_a_newer_format_is_refused_and_left_alone(run, monkeypatch):
    monkeypatch.setattr("jaxhpo.record.manifest._FORMAT", 2)
    saved_run(run)
    monkeypatch.undo()
    with pytest.raises(UsageError, match="has format 2, this version of jaxhpo reads 1"):
        Store(run).latest(abstract(host_state()))
    assert Store(run).indices() == [0, 1]


def test_a_failed_save_surfaces_once_and_leaves_nothing_behind(run, monkeypatch):
    def fail(*_):
        raise RuntimeError("the disk went away\nat length")

    notes = []
    with Store(run, note=notes.append) as store:
        store.save(0, host_state(0), wait=True)
        store.wait()
        with monkeypatch.context() as patch:
            patch.setattr(arrays_, "write", fail)
            store.save(1, host_state())
            with pytest.raises(CheckpointError, match=r"checkpoint 1 .* the disk went away$"):
                store.wait()
        assert os.listdir(run.checkpoints) == ["00000000"]
        assert store.save(2, host_state(2))
    assert Store(run).indices() == [0, 2]
    with pytest.raises(KeyError), Store(run, note=notes.append) as store:
        monkeypatch.setattr(arrays_, "write", fail)
        store.save(3, host_state())
        raise KeyError("what stopped the run is not hidden")
    assert "the disk went away" in notes[-1]


def test_too_little_space_is_known_before_writing(run, monkeypatch):
    usage = shutil.disk_usage(run.path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with Store(run) as store:
        with pytest.raises(
            CheckpointError, match=r"the disk is full: .* needs \d+ bytes, 100 are free"
        ):
            store.save(0, host_state())
        assert os.listdir(run.checkpoints) == []
        monkeypatch.undo()
        assert store.save(0, host_state())


def test_a_full_disk_costs_one_save_and_nothing_committed(tmp_path, monkeypatch):
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(disk)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small file system is not permitted here")
    try:
        run = RunDirectory.create(disk / "run")
        noise = np.random.default_rng(0).normal(size=(8, 2**15)).astype(np.float32)  # 1 MiB
        with run.lock(), Store(run, CheckpointConfig(keep_last=9)) as store:
            monkeypatch.setattr(Store, "_check_space", lambda *_: None)
            failed = None
            for index in range(12):
                store.save(index, {"w": noise + index})
                try:
                    store.wait()
                except CheckpointError as error:
                    failed = index
                    assert "the disk is full" in str(error) and "are free" in str(error)
                    assert str(run.checkpoints) in str(error)
                    break
            assert failed is not None and failed >= 2
            assert store.indices() == list(range(failed))  # no partial folder
            assert len(os.listdir(run.checkpoints)) == failed
            wanted = {"w": jax.ShapeDtypeStruct(noise.shape, noise.dtype)}
            newest = store.latest(wanted)
            assert newest.index == failed - 1
            assert np.array_equal(newest.state["w"], noise + (failed - 1))
            shutil.rmtree(run.checkpoints / "00000000")
            store.save(failed, {"w": noise + failed})
            store.wait()
            assert store.latest(wanted).index == failed
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_keys_and_python_numbers_are_refused_by_name(run):
    with Store(run) as store:
        with pytest.raises(TypeError, match=r"rng\.key is .*not an array of numbers"):
            store.save(0, {"rng": {"key": jax.random.key(0)}})
        with pytest.raises(TypeError, match="step is int"):
            store.save(0, {"step": 3})


def test_without_the_lock_nothing_is_written(tmp_path):
    run = RunDirectory.create(tmp_path / "run")
    with pytest.raises(ValueError, match="not locked"):
        Store(run).save(0, host_state())
    assert os.listdir(run.path) == []
