"""One member alone, readers that pin, checkpoints shared between runs, and which ones stay."""

import contextlib
import errno
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxhpo.errors import UsageError
from jaxhpo.record import CheckpointConfig, CheckpointError, RunDirectory, Store
from jaxhpo.record.manifest import verify
from jaxhpo.record.pins import Pin
from jaxhpo.record.sharing import Shared, share

MEMBERS = 16


@pytest.fixture
def run(tmp_path: Path):
    run = RunDirectory.create(tmp_path / "run")
    with run.lock():
        yield run


def state(seed: int = 0) -> dict:
    rng = np.random.default_rng(seed)
    leaf = lambda *shape: rng.normal(size=(MEMBERS, *shape)).astype(np.float32)
    return {
        "params": {f"w{i}": leaf(40, 30) for i in range(6)},
        "half": np.asarray(jax.numpy.asarray(leaf(7), jax.numpy.bfloat16)),
        "empty": np.zeros((MEMBERS, 0), np.float32),
        "step": np.arange(MEMBERS, dtype=np.int32),
    }


def one(tree: dict) -> dict:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), tree)


def saved(run: RunDirectory, count: int = 1, **policy) -> Store:
    with Store(run, CheckpointConfig(**policy)) as store:
        for index in range(count):
            store.save(index, state(index), {"trials": [], "steps": []}, wait=True)
    return store


def same(found: dict, expected: dict, member: int) -> bool:
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    return all(a.tobytes() == b[member].tobytes() and a.dtype == b.dtype for a, b in pairs)


def read_bytes() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("rchar")).split()[1])


def test_a_member_is_restored_without_reading_the_others(run: RunDirectory) -> None:
    store = saved(run)
    store.restore_member(0, 0, one(state()))  # imports are read from the disk too
    size = sum(path.stat().st_size for path in (run.checkpoints / "00000000").rglob("*"))
    if not Path("/proc/self/io").exists():
        pytest.skip("this system does not say how much was read")
    for member in (0, 5, MEMBERS - 1):
        before = read_bytes()
        found = store.restore_member(0, member, one(state()))
        read = read_bytes() - before
        assert same(found, state(), member)
        assert read < size / 3, f"{read} of {size} bytes were read"


def test_one_of_several_populations_is_restored_by_its_name(run: RunDirectory) -> None:
    small, large = state(1), jax.tree.map(lambda x: np.concatenate([x, x]), state(2))
    groups = {"d=8": {}, "d=16 x": {}}
    with Store(run) as store:
        store.save(0, {"d=16 x": large, "d=8": small}, {"groups": groups}, wait=True)
    assert same(store.restore_member(0, 3, one(small), "d=8"), small, 3)
    assert same(store.restore_member(0, 20, one(large), "d=16 x"), large, 20)


def test_what_is_no_member_or_another_model_is_refused_by_name(run: RunDirectory) -> None:
    store = saved(run)
    with pytest.raises(CheckpointError, match="has no member 16; members: 16"):
        store.restore_member(0, MEMBERS, one(state()))
    with pytest.raises(CheckpointError, match="has no checkpoint 7; there are: 0"):
        store.restore_member(7, 0, one(state()))
    other = one(state()) | {"step": jax.ShapeDtypeStruct((), np.float32)}
    with pytest.raises(
        UsageError, match=r"step is int32\[\] in the checkpoint and float32\[\] here"
    ):
        store.restore_member(0, 0, other)


def test_no_flipped_bit_is_loaded_into_a_member(run: RunDirectory) -> None:
    """200 flips, 150 of them in array data: refused, or where no byte of the member lies."""
    store, wanted, rng = saved(run), state(), np.random.default_rng(11)
    files = [path for path in (run.checkpoints / "00000000").rglob("*") if path.is_file()]
    arrays = max(files, key=lambda path: path.stat().st_size)
    refused = 0
    for trial in range(200):
        path = arrays if trial % 4 else files[rng.integers(len(files))]
        whole = path.read_bytes()
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(damaged))
        try:
            assert same(store.restore_member(0, 3, one(wanted)), wanted, 3)
        except CheckpointError:
            refused += 1
        path.write_bytes(whole)
    assert refused >= 10
    assert same(store.restore_member(0, 3, one(wanted)), wanted, 3)


def test_every_file_truncated_or_removed_is_never_a_silent_wrong_member(run: RunDirectory) -> None:
    store, wanted = saved(run), state()
    for path in [path for path in (run.checkpoints / "00000000").rglob("*") if path.is_file()]:
        whole = path.read_bytes()
        for damage in (b"", whole[: len(whole) // 2]):
            path.write_bytes(damage) if damage else path.unlink()
            with contextlib.suppress(CheckpointError):
                assert same(store.restore_member(0, 3, one(wanted)), wanted, 3)
            path.write_bytes(whole)


def test_a_pinned_checkpoint_outlives_the_keep_policy_until_it_is_released(
    run: RunDirectory,
) -> None:
    with Store(run, CheckpointConfig(keep_last=1, keep_best=False)) as store:
        store.save(0, state(0), wait=True)
        store.wait()
        pin = Pin(run.checkpoints / "00000000")
        store.save(1, state(1), wait=True)
        store.wait()
        assert store.indices() == [0, 1]
        pin.release()
        store.save(2, state(2), wait=True)
        store.wait()
        assert store.indices() == [2]


def test_the_stable_end_and_the_best_stay_whatever_comes_after(run: RunDirectory) -> None:
    about = [
        {"keep": "stable-end"},
        {"loss": 2.5},
        {"loss": 2.0},
        {"loss": None},
        {"loss": 2.2},
        {},
    ]
    with Store(run, CheckpointConfig(keep_last=1)) as store:
        for index, metadata in enumerate(about):
            store.save(index, state(index), metadata, wait=True)
    assert Store(run).indices() == [0, 2, 5]
    with Store(run, CheckpointConfig(keep_last=1, keep_best=False)) as store:  # as resumed later
        store.save(6, state(6), {}, wait=True)
    assert Store(run).indices() == [0, 6]


def test_a_shared_checkpoint_is_the_same_files_and_stays_when_the_source_goes(
    run: RunDirectory, tmp_path: Path
) -> None:
    saved(run)
    source, target = run.checkpoints / "00000000", tmp_path / "child" / "00000000"
    shared = share(source, target)
    names = [path.relative_to(source) for path in source.rglob("*") if path.is_file()]
    assert shared == Shared(linked=len(names), copied=0, bytes_copied=0)
    assert all(os.path.samefile(source / name, target / name) for name in names)
    shutil.rmtree(source)
    verify(target)
    assert os.listdir(target.parent) == ["00000000"]


def test_another_file_system_gets_a_copy(
    run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(run)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    shared = share(run.checkpoints / "00000000", tmp_path / "child" / "00000000")
    whole = sum(path.stat().st_size for path in (run.checkpoints / "00000000").rglob("*"))
    folders = sum(path.stat().st_size for path in (run.checkpoints / "00000000").rglob("*/"))
    assert (shared.linked, shared.bytes_copied) == (0, whole - folders)
    verify(tmp_path / "child" / "00000000")


@pytest.mark.parametrize("what", ["damaged", "gone", "full"])
def test_a_checkpoint_that_cannot_be_shared_leaves_nothing_behind(
    what: str, run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(run)
    source, target = run.checkpoints / "00000000", tmp_path / "child" / "00000000"
    if what == "damaged":
        os.truncate(max(source.rglob("d/*"), key=lambda path: path.stat().st_size), 5)
    if what == "gone":
        shutil.rmtree(source)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if what == "full":
        monkeypatch.setattr(os, "link", full)
    with pytest.raises(UsageError, match={"full": "the disk is full"}.get(what, "can't fork from")):
        share(source, target)
    assert not target.exists() and not list(tmp_path.glob("child/*"))


def test_quiet_lets_readers_in_together_and_writers_out(run: RunDirectory) -> None:
    other = RunDirectory(run.path)
    with pytest.raises(UsageError, match=f"is running .process {os.getpid()}"):
        other.quiet()
    run.lock().release()
    with other.quiet(), RunDirectory(run.path).quiet(), pytest.raises(UsageError, match="in use"):
        run.lock()
    run.lock()
