"""Texts of a prepared data set, read by Grain from its array records: any of them, in any order."""

import functools
import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from jaxhpo.errors import UsageError

TOGETHER = 256
"""Records that are read in one call."""
THREADS = 2
"""Threads that read ahead; more do not parse faster, for they share one interpreter."""
SAMPLED = 64


@dataclass(frozen=True)
class Records:
    """Records `start` to `stop` of a split, of which one column is the text.

    Texts may be bytes or text. What is no UTF-8, and NUL, which separates documents, shows as
    U+FFFD: nobody can mend a data set. Empty ones are left out where they are read in order.
    """

    name: str
    folder: str
    split: str
    start: int
    stop: int
    column: str
    size: int
    """bytes, about"""

    def __len__(self) -> int:
        return self.stop - self.start

    def read(self, start: int, stop: int) -> Iterator[tuple[str, bytes]]:
        """Names and texts `start` to `stop` that are not empty, in order, read ahead by threads."""
        wanted = range(start, stop)
        runs = [wanted[at : at + TOGETHER] for at in range(0, len(wanted), TOGETHER)]
        for run, texts in zip(runs, self._read_all(runs), strict=True):
            for at, text in zip(run, texts, strict=True):
                if text:
                    yield f"{self.name}/{self.split}/{self.start + at}", text

    def at(self, indices: Sequence[int]) -> list[bytes]:
        """The texts at some places, in their order."""
        places = list(map(int, indices))
        runs = [places[at : at + TOGETHER] for at in range(0, len(places), TOGETHER)]
        return list(itertools.chain.from_iterable(self._read_all(runs)))

    def pieces(self, size: int) -> list[tuple[int, int]]:
        count = max(1, min(len(self), round(self.size / max(1, size))))
        ends = [len(self) * at // count for at in range(count + 1)]
        return list(itertools.pairwise(ends))

    def job(self, start: int, stop: int) -> dict[str, Any]:
        size = self.size * (stop - start) // max(1, len(self))
        return {
            **asdict(self),
            "start": self.start + start,
            "stop": self.start + stop,
            "size": size,
        }

    @property
    def fingerprint(self) -> str:
        """sha256 of what the data set says of itself (shards, their lengths, bytes), of which
        records these are, and of 64 of the texts: another data set has another one."""
        info = _builder(self.folder).info
        split = info.splits[self.split]
        about = [info.full_name, self.split, self.start, self.stop, self.column]
        about += [int(split.num_bytes), list(map(int, split.shard_lengths))]
        digest = hashlib.sha256(json.dumps(about).encode())
        count = min(SAMPLED, len(self))
        for text in self.at([at * len(self) // count for at in range(count)]):
            digest.update(len(text).to_bytes(8, "little") + text)
        return digest.hexdigest()

    def _read_all(self, runs: Sequence[Sequence[int]]) -> Iterator[list[bytes]]:
        import grain

        source: Any = _Runs(_source(self.folder, self.split), self.start, self.column, runs)
        options = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=2 * THREADS)
        try:
            yield from grain.MapDataset.source(source).to_iter_dataset(options)
        except (ValueError, RuntimeError, OSError, IndexError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise UsageError(
                f"data set {self.name}: {self.folder} can't be read ({reason}); prepare or copy it "
                "again"
            ) from None


@dataclass(frozen=True, eq=False)
class _Runs:
    """Runs of texts as Grain reads them: the source of its dataset."""

    source: Any
    start: int
    column: str
    runs: Sequence[Sequence[int]]

    def __len__(self) -> int:
        return len(self.runs)

    def __getitem__(self, run: int) -> list[bytes]:
        places = [self.start + at for at in self.runs[run]]
        return [_text(row[self.column]) for row in self.source.__getitems__(places)]


@functools.lru_cache(maxsize=8)
def _builder(folder: str) -> Any:
    import tensorflow_datasets as tfds

    return tfds.builder_from_directory(folder)


@functools.lru_cache(maxsize=16)
def _source(folder: str, split: str) -> Any:
    return _builder(folder).as_data_source(split=split)


def _text(value: Any) -> bytes:
    raw = value.encode(errors="replace") if isinstance(value, str) else bytes(value)
    if b"\0" not in raw:
        try:
            raw.decode()
            return raw
        except UnicodeDecodeError:
            pass
    return raw.decode(errors="replace").replace("\0", "\ufffd").encode()
