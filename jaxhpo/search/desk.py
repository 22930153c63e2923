"""What one process does with a shared study: takes trials, tells of them, requeues stale ones."""

import math
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxhpo.errors import UsageError
from jaxhpo.search.bayes import TRIES, ask, states
from jaxhpo.search.plan import Point
from jaxhpo.search.samplers import parameters, quietly
from jaxhpo.search.space import Space
from jaxhpo.search.storage import open_storage, reaching

RETRIES = 3
"""How often a point is given out again after its process died: it may be what kills."""

HELD, REFUSED, RETRY_OF, RETRIED = "held", "refused", "retry_of", "retried"
"""Attributes of trials: somebody has it; why it was given back; whose retry it is, and which."""


class Desk:
    """This process's dealings with the database; every answer is what JSON can hold."""

    def __init__(
        self,
        name: str,
        sampler: Any,
        space: Space,
        trials: int,
        steps: int,
        url: str,
        study: str,
        heartbeat: int,
    ) -> None:
        import optuna

        self.name, self.space, self.trials, self.steps = name, space, trials, steps
        self.url, self.heartbeat = url, heartbeat
        self._storage = open_storage(url, heartbeat)
        with reaching(url), quietly():
            self._study = optuna.create_study(
                storage=self._storage,
                sampler=sampler,
                study_name=study,
                direction="minimize",
                load_if_exists=True,
            )
            self._check_purpose(study)
            self._study_id = self._storage.get_study_id_from_name(study)
        self._unheld: dict[int, float] = {}  # trials of nobody: since when we have known them
        self._waited = False
        self._pulse = Pulse(self._storage, self._study_id, heartbeat)

    def ask(self, given: Point | None) -> dict[str, Any]:
        """A trial nobody else has, or none (number None).

        Where there is none and this process trains nothing, others' trials that are not finished
        are waited for, for as long as it takes to see that their processes live.
        """
        with reaching(self.url), quietly():
            until = time.monotonic() + (0 if self._waited else 3 * self.heartbeat)
            while True:
                self._requeue_stale()
                if (answer := self._claimed(given)) is not None:
                    return answer
                if self._pulse.numbers or not self._unfinished():
                    return {"number": None}
                if time.monotonic() > until:
                    self._waited = True
                    return {"number": None}
                time.sleep(min(1.0, self.heartbeat / 5))

    def report(self, number: int, step: int, score: float) -> bool:
        """Whether the trial is still ours; a full or diverged one is then finished."""
        with reaching(self.url), quietly():
            state = self._trial(number).state
            if state != states().RUNNING:
                return state != states().FAIL
            finite = math.isfinite(score)
            try:
                if finite:
                    self._storage.set_trial_intermediate_value(self._id(number), step, score)
                if not finite or step >= self.steps:
                    self._study.tell(number, score if finite else math.inf)
            except (ValueError, _finished_meanwhile()):
                return self._trial(number).state != states().FAIL
            return True

    def leave(self, number: int) -> bool:
        """Finishes a trial that is let go; it counts as pruned at what was reported last."""
        with reaching(self.url), quietly():
            if self._trial(number).state == states().RUNNING:
                try:
                    self._study.tell(number, state=states().PRUNED)
                except (ValueError, _finished_meanwhile()):
                    return False
            return True

    def holds(self, numbers: Sequence[int]) -> None:
        self._pulse.holds(numbers)

    def close(self) -> None:
        self._pulse.close()
        self._storage.engine.dispose()

    def _claimed(self, given: Point | None) -> dict[str, Any] | None:
        """A trial taken: one that waits, else a new one, as long as the study has too few."""
        for attempt in range(TRIES + 1):
            waiting = any(t.state == states().WAITING for t in self._all())
            if not waiting and _count(self._all()) >= self.trials:
                return None
            if not waiting and (given is not None or attempt == TRIES):
                point = self.space.sample(np.random.default_rng()) if given is None else given
                self._study.enqueue_trial(parameters(point, self.space))
            asked, point = ask(self._study, self.name, self.space)
            refusal = self._refusal(asked.number, point)
            if refusal is None:
                self._storage.record_heartbeat(self._id(asked.number))
                asked.set_user_attr(HELD, True)
                return {"number": asked.number, "point": dict(point)}
            asked.set_user_attr(REFUSED, refusal)
            self._study.tell(asked, state=states().FAIL)
        return None

    def _refusal(self, number: int, point: Point) -> str | None:
        """Why a trial must not be trained: of those that several may see, the lowest number is."""
        trials = self._all()
        mine = trials[number]
        earlier = trials[:number]
        if RETRY_OF in mine.user_attrs:
            original = mine.user_attrs[RETRY_OF]
            if any(t.user_attrs.get(RETRY_OF) == original for t in earlier):
                return "it was given out again already"
        elif _count(earlier, trials) >= self.trials:
            return "the study has enough"
        try:
            self.space.check(point)
        except UsageError as error:
            return str(error)
        diverged = [t.params for t in trials if t.value == math.inf]
        return "it diverges" if mine.params in diverged else None

    def _requeue_stale(self) -> None:
        """Fails the trials whose process is gone, and has each wait again, once."""
        import optuna

        optuna.storages.fail_stale_trials(self._study)
        self._fail_unheld()
        trials = self._all()
        for trial in trials:
            if _is_pending(trial, trials):
                waiting = optuna.trial.create_trial(
                    state=states().WAITING,
                    params=trial.params,
                    distributions=trial.distributions,
                    user_attrs={
                        RETRY_OF: trial.number,
                        RETRIED: trial.user_attrs.get(RETRIED, 0) + 1,
                    },
                    system_attrs=trial.system_attrs,
                )
                self._study.add_trial(waiting)

    def _fail_unheld(self) -> None:
        """A process that died before its first sign of life left a trial that only we can time."""
        now = time.monotonic()
        unheld = [
            t.number
            for t in self._all()
            if t.state == states().RUNNING and HELD not in t.user_attrs
        ]
        self._unheld = {number: self._unheld.get(number, now) for number in unheld}
        for number, since in self._unheld.items():
            if now - since > 2 * self.heartbeat:
                try:
                    self._study.tell(number, state=states().FAIL)
                except (ValueError, _finished_meanwhile()):
                    continue

    def _unfinished(self) -> bool:
        return any(not trial.state.is_finished() for trial in self._all())

    def _all(self) -> list[Any]:
        return self._study.get_trials(deepcopy=False)

    def _trial(self, number: int) -> Any:
        return self._storage.get_trial(self._id(number))

    def _id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)

    def _check_purpose(self, study: str) -> None:
        purpose = {
            "space": self.space.to_mapping(),
            "constraints": [str(rule) for rule in self.space.constraints],
            "steps": self.steps,
        }
        before = self._study.user_attrs.get("jaxhpo")
        if before is None and not self._all():
            self._study.set_user_attr("jaxhpo", purpose)
        elif before != purpose:
            raise UsageError(
                f"search.study={study!r} was made for {_differences(before, purpose)}; search the "
                "same, or name another study"
            )


class Pulse:
    """Signs of life for trials in flight, from a thread of its own."""

    def __init__(self, storage: Any, study_id: int, seconds: int) -> None:
        self.numbers: tuple[int, ...] = ()
        self._storage, self._study_id, self._seconds = storage, study_id, seconds
        self._wake = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None

    def holds(self, numbers: Sequence[int]) -> None:
        self.numbers = tuple(numbers)
        if numbers and self._thread is None and not self._closed:
            self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
            self._thread.start()

    def close(self) -> None:
        self._closed = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def _beat(self) -> None:
        while not self._closed:
            for number in self.numbers:
                self._beat_once(number)
            self._wake.wait(self._seconds)

    def _beat_once(self, number: int) -> None:
        try:
            trial = self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)
            self._storage.record_heartbeat(trial)
        except Exception:
            # the next answer that the search needs says what is wrong; until then it may be over
            return


def _count(trials: Sequence[Any], all_trials: Sequence[Any] | None = None) -> int:
    """Trials that are or will be trained: those that wait to be given out again are, too."""
    everyone = trials if all_trials is None else all_trials
    return sum(t.state != states().FAIL or _is_pending(t, everyone) for t in trials)


def _is_pending(trial: Any, trials: Sequence[Any]) -> bool:
    """Failed because it was stale, and not yet given out again."""
    if trial.state != states().FAIL or REFUSED in trial.user_attrs:
        return False
    if trial.user_attrs.get(RETRIED, 0) >= RETRIES:
        return False
    return all(other.user_attrs.get(RETRY_OF) != trial.number for other in trials)


def _differences(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> str:
    if before is None:
        return "something else"
    changed = [key for key in now if before.get(key) != now[key]]
    return "; ".join(f"{key} {before.get(key)!r}, not {now[key]!r}" for key in changed)


def _finished_meanwhile() -> type[Exception]:
    from optuna.exceptions import UpdateFinishedTrialError

    return UpdateFinishedTrialError
