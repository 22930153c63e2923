"""WSD forks: a trunk at a constant rate, and decays that start from it at several points.

One trunk gives the finished model of every budget for the cost of its decay. Source: Hagele et al.
2024 (arXiv 2405.18392); Hu et al. 2024 (arXiv 2404.06395).
"""

from collections.abc import Sequence

from jaxhpo.errors import UsageError
from jaxhpo.search.plan import Value
from jaxhpo.search.stoppers import Born, Bounds, Fork, Job, Outcome, even_part

SETS = ("schedule.kind", "schedule.decay_start", "schedule.decay_steps")
"""What the trunk's point and those of its forks say; no dimension may."""


class Forks:
    """Each trunk is forked `forks` times, at equal distances of the ends of the decays.

    A fork copies all of the trunk's state and its seed, so that the decay continues the trunk's
    trajectory; the trunk goes on in the same plan, and ends at its last fork.
    """

    def __init__(
        self, trunks: int, steps: int, forks: int, decay_share: float, segment: int
    ) -> None:
        self.trunks, self.steps, self.forks, self.segment = trunks, steps, forks, segment
        ends = [steps * (j + 1) // forks for j in range(forks)]
        self.decays = tuple((end - max(1, round(decay_share * end)), end) for end in ends)
        starts = [start for start, _ in self.decays]
        if min(starts) < 1 or len(set(starts)) < forks:
            raise UsageError(
                f"search.forks={forks} and search.decay_share={decay_share:g} do not fit into "
                f"steps={steps}: the decays would start at {starts}; use fewer forks or more steps"
            )
        self.start()

    @property
    def trunk(self) -> dict[str, Value]:
        """What every trunk's point says beside the space: no decay before the end of the run."""
        length = float(self.steps - self.decays[-1][0])
        return dict(zip(SETS, ("wsd", float(self.steps), length), strict=True))

    def start(self) -> None:
        self._started = 0
        self._next: dict[int, int] = {}  # trunk -> index of the fork that it stands at or goes to
        self._standing: list[int] = []  # trunks whose fork is to start
        self._going: list[int] = []  # trunks whose fork has started, and that go on

    @property
    def bounds(self) -> Bounds:
        trained = self.decays[-1][0] + sum(end - start for start, end in self.decays)
        return Bounds(
            trials=self.trunks * (1 + self.forks),
            rows=self.trunks * self._rows,
            trained=self.trunks * trained,
            ranked=0,
            spans=(*self._trunk, *self.decays),
            tick=self._tick,
        )

    def job(self, born: Born) -> Job | None:
        # a trunk goes on only after its fork has been given a place: the fork copies it as it is
        if self._standing:
            trunk = self._standing.pop(0)
            start, end = self.decays[self._next[trunk]]
            fork = born(
                Fork(trunk, dict(zip(SETS[1:], (float(start), float(end - start)), strict=True)))
            )
            self._next[trunk] += 1
            if self._next[trunk] < self.forks:
                self._going.append(trunk)
            return None if fork is None else Job(fork, end)
        if self._going:
            trunk = self._going.pop(0)
        elif self._started == self.trunks or (new := born(None)) is None:
            return None
        else:
            trunk = new
            self._started += 1
            self._next[trunk] = 0
        return Job(trunk, self.decays[self._next[trunk]][0])

    def report(self, outcomes: Sequence[Outcome]) -> None:
        self._standing += [o.trial for o in outcomes if o.trial in self._next and o.alive]

    @property
    def paused(self) -> frozenset[int]:
        return frozenset((*self._standing, *self._going))

    def most_paused(self, places: int) -> int:
        return 0 if places >= self.bounds.rows else self.trunks

    @property
    def _trunk(self) -> tuple[tuple[int, int], ...]:
        starts = [start for start, _ in self.decays]
        return tuple(zip((0, *starts), starts, strict=False))

    @property
    def _tick(self) -> int:
        return even_part(min(end - start for start, end in self._trunk), self.segment)

    @property
    def _rows(self) -> int:
        """Rows of one trunk and its forks at once, where all find a place at once."""
        ticks = lambda start, end: -(-(end - start) // self._tick)
        at, spans = 0, []
        for span, decay in zip(self._trunk, self.decays, strict=True):
            at += ticks(*span)
            spans.append((at, at + ticks(*decay)))
        alive = lambda t: sum(start <= t < end for start, end in spans) + (t < at)
        return max(alive(t) for t in [0, *(start for start, _ in spans)])
