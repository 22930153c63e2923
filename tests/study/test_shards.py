"""Each process reads the rows that its devices work on, and no others."""

import numpy as np
import pytest

from jaxhpo.data.batches import Batches
from jaxhpo.population.mesh import make_mesh
from jaxhpo.study import shards

TRAIN = Batches(np.arange(1, 900, dtype=np.uint16), context=7, batch_size=8, seed=3)


def test_one_process_reads_whole_batches() -> None:
    mesh = make_mesh()
    assert shards.rows_here(mesh, 8) == (0, 8)
    assert shards.batches_of(TRAIN, mesh) == TRAIN.batch_at


@pytest.mark.parametrize("host", range(4))
def test_a_host_reads_its_rows_and_leaves_the_others_zero(
    host: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the batch is split over four hosts."""
    mine = slice(2 * host, 2 * host + 2)
    read: list[int] = []
    gather = Batches.tokens_at
    monkeypatch.setattr(
        Batches, "tokens_at", lambda self, index: read.append(index.size) or gather(self, index)
    )
    monkeypatch.setattr(shards, "rows_here", lambda mesh, size: (mine.start, mine.stop))
    found = shards.batches_of(TRAIN, None)(3, 5)["tokens"]
    assert read == [5 * 2]
    whole = TRAIN.batch_at(3, 5)["tokens"]
    np.testing.assert_array_equal(found[:, mine], whole[:, mine])
    others = np.delete(found, np.arange(8)[mine], axis=1)
    assert found.shape == whole.shape and not others.any()
