"""One study for several processes: a database gives out trials, each to one process.

Answers of the database are events: they go through the journal, so a search that is replayed asks
again for nothing that it has been told. A trial whose process gives no sign of life is stale; it is
failed, and given out again once, under a new number.
"""

from collections.abc import Sequence
from typing import Any

from jaxhpo.errors import UsageError
from jaxhpo.search.desk import Desk
from jaxhpo.search.journal import Journal, Memory
from jaxhpo.search.plan import Point
from jaxhpo.search.samplers import make_sampler
from jaxhpo.search.space import Space


class Shared:
    """A proposer on a study that others work on too. Raises UsageError if it can't be reached, was
    made for another space, or would have to be unpickled (CMA-ES).
    """

    def __init__(
        self,
        name: str,
        space: Space,
        seed: int,
        trials: int,
        steps: int,
        url: str,
        study: str,
        heartbeat: int,
        journal: Journal | None = None,
        initial: Sequence[Point] = (),
    ) -> None:
        if name == "cmaes":
            raise UsageError(
                "search.proposer='cmaes' can't share a study: Optuna unpickles its state from the "
                "database, so whoever can write there could run code here; use tpe"
            )
        self.space, self.trials, self.steps = space, trials, steps
        self.initial = tuple(space.check(point) for point in initial)
        self.journal: Journal = Memory() if journal is None else journal
        self._desk: Desk | None = None
        if self.journal.asks:
            # draws must differ between processes; Sobol's scrambling must not
            sampler = make_sampler(name, space, seed if name == "qmc" else None, trials)
            self._desk = Desk(name, sampler, space, trials, steps, url, study, heartbeat)
        self.start()

    @property
    def limit(self) -> None:
        return None

    def foreseen(self, count: int) -> None:
        return None

    def start(self) -> None:
        self._asked, self._numbers = 0, []
        self._here([])

    def propose(self, trial: int) -> Point | None:
        given = self.initial[trial] if trial < len(self.initial) else None
        self._asked += 1
        answer = self._once(f"ask {self._asked}", lambda desk: desk.ask(given))
        if answer["number"] is None:
            return None
        self._numbers.append(answer["number"])
        self._here([*self._in_flight, answer["number"]])
        return self.space.check(answer["point"])

    def report(self, trial: int, step: int, score: float) -> bool:
        number = self._numbers[trial]
        return self._once(f"report {number} {step}", lambda desk: desk.report(number, step, score))

    def leave(self, trial: int) -> None:
        number = self._numbers[trial]
        if number in self._in_flight:
            self._once(f"leave {number}", lambda desk: desk.leave(number))
            self._here([each for each in self._in_flight if each != number])

    def close(self) -> None:
        """No more signs of life; trials in flight stay ours until they are stale."""
        if self._desk is not None:
            self._desk.close()

    def _here(self, numbers: list[int]) -> None:
        self._in_flight = numbers
        if self._desk is not None:
            self._desk.holds(numbers)

    def _once(self, question: str, ask: Any) -> Any:
        def live() -> Any:
            assert self._desk is not None, "the journal asks where there is nobody to ask"
            return ask(self._desk)

        return self.journal.once(question, live)
