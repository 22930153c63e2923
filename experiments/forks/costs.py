"""What a checkpoint of 64 members costs: the wait for a save, a fork, a plain copy, one member.

Writes costs.json beside this file; each number is the median of five.

    python experiments/forks/costs.py          # half a minute
    python experiments/forks/costs.py --tiny   # 4 members, once
"""

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxhpo.config.run import TrainRun
from jaxhpo.data.config import DataConfig
from jaxhpo.population.config import ExecutionConfig, prepare_backend

HERE = Path(__file__).parent
MEMBERS, TIMES = 64, 5


def seconds(work: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def used(folder: Path) -> int:
    """Bytes that a folder's files take beyond those that have another name elsewhere."""
    files = [path.stat() for path in folder.rglob("*") if path.is_file()]
    return sum(file.st_blocks * 512 for file in files if file.st_nlink == 1)


def once(home: Path, population: Any, abstract: Any) -> dict[str, float]:
    """One save of a population, a fork and a plain copy of it, one member and all restored."""
    import jax

    from jaxhpo.record import RunDirectory, Store
    from jaxhpo.record.manifest import verify
    from jaxhpo.record.sharing import share

    run = RunDirectory.create(home / "run")
    with run.lock(), Store(run) as store:
        wait = seconds(lambda: store.save(0, population))
        commit = wait + seconds(store.wait)
    source, fork, copy = run.checkpoints / "00000000", home / "forks" / "00000000", home / "copy"
    fork.parent.mkdir()
    forked = seconds(lambda: share(source, fork))
    copied = seconds(lambda: (shutil.copytree(source, copy), os.sync(), verify(copy)))
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), abstract)
    place = population.step.shape[0] // 2
    member = seconds(lambda: store.restore_member(0, place, one))
    whole = seconds(lambda: jax.block_until_ready(store.restore(0, abstract).state))
    found = {
        "wait_seconds": wait,
        "commit_seconds": commit,
        "fork_seconds": forked,
        "fork_bytes": used(fork),
        "copy_seconds": copied,
        "copy_bytes": used(copy),
        "member_seconds": member,
        "restore_seconds": whole,
    }
    shutil.rmtree(home)
    return found


def measure(members: int, times: int) -> dict[str, Any]:
    import jax
    import numpy as np

    from jaxhpo.population.rows import make_rows
    from jaxhpo.study.setup import prepare

    setup = prepare(
        TrainRun(data=DataConfig(source="synthetic"), execution=ExecutionConfig(devices=2))
    )
    group = setup.groups.opened[()]
    engine = setup.opening.engine(setup.config, members)
    rows = make_rows(
        group.lower([{}] * members),
        seeds=range(members),
        steps=[1] * members,
        newborn=[True] * members,
    )
    abstract = engine.abstract(rows)
    rng = np.random.default_rng(0)  # zeros would be compressed away
    draw = lambda x: rng.normal(size=x.shape).astype(x.dtype)
    population = jax.tree.map(lambda x: jax.device_put(draw(x), x.sharding), abstract)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(population))
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(times):
            for name, value in once(Path(folder) / str(number), population, abstract).items():
                found.setdefault(name, []).append(value)
    medians = {name: statistics.median(values) for name, values in found.items()}
    parameters = setup.parameters
    return {
        "members": members,
        "parameters": parameters,
        "state_bytes": int(np.int64(size)),
        **medians,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tiny", action="store_true", help="4 members, once")
    parser.add_argument("--out", type=Path, default=HERE, help="where the result goes")
    asked = parser.parse_args()
    members, times = (4, 1) if asked.tiny else (MEMBERS, TIMES)
    prepare_backend(ExecutionConfig(devices=2), members)
    result = measure(members, times)
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "costs.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
