"""The members that a run's checkpoints hold, and which of them a person means."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxhpo.config.forks import BEST, LAST, STABLE_END, tokens_of
from jaxhpo.errors import UsageError
from jaxhpo.record.checkpoints import Store
from jaxhpo.record.history import History
from jaxhpo.record.keeping import KEEP, LOSS
from jaxhpo.study.origin import Taken

NEAR = 0.01
"""How far from the tokens that are asked for a checkpoint may be, as a share: people round them."""


@dataclass(frozen=True)
class Kept:
    """What of a run is still there: every member of every checkpoint, oldest first."""

    past: History
    members: tuple[tuple[int, Taken], ...]
    """trial and where it lies"""
    about: Mapping[int, Mapping[str, Any]]
    """metadata by index"""

    @classmethod
    def of(cls, store: Store, past: History) -> "Kept":
        digests = {event["index"]: event["digest"] for event in past.checkpoints}
        about = {i: data for i, data in store.contents().items() if i < len(past.reports)}
        members = tuple(
            (trial, Taken(index, place, name, step, digests.get(index, "")))
            for index, metadata in about.items()
            for name, trials, steps in populations(metadata)
            for place, (trial, step) in enumerate(zip(trials, steps, strict=True))
            if trial is not None
        )
        return cls(past, members, about)

    def find(
        self, text: str, option: str, trial: int | None, tokens_at: Mapping[int, int]
    ) -> tuple[int, Taken]:
        """The trial and its place in a checkpoint that `text` means: the best where none is named.

        `tokens_at` has the tokens that each kept step comes after. Raises UsageError naming the
        steps that were kept.
        """
        mine = [row for row in self.members if trial in (None, row[0])]
        if not mine:
            known = sorted({row[0] for row in self.members})
            raise UsageError(
                f"trial={trial}: no checkpoint of {self._name} has it; those that are there: "
                f"{', '.join(map(str, known)) or 'none'}"
            )
        there = self._there(text, mine, tokens_at)
        if not there:
            raise UsageError(
                f"{option}={text}: {self._name} kept no such checkpoint; {self._steps(mine)}"
            )
        newest = max(taken.index for _, taken in there)
        return min((row for row in there if row[1].index == newest), key=self._rank)

    def _there(
        self, text: str, mine: Sequence[tuple[int, Taken]], tokens_at: Mapping[int, int]
    ) -> list[tuple[int, Taken]]:
        if text == LAST:
            return [row for row in mine if row[1].index == max(taken.index for _, taken in mine)]
        if text == BEST:
            losses = {i: self._loss(data.get(LOSS)) for i, data in self.about.items()}
            lowest = min(losses, key=lambda index: (losses[index], index))
            return [row for row in mine if row[1].index == lowest]
        if text == STABLE_END:
            ends = {i for i, data in self.about.items() if data.get(KEEP) == STABLE_END}
            return [row for row in mine if row[1].index in ends]
        tokens = tokens_of(text)
        if tokens is None:
            return [row for row in mine if row[1].step == int(text)]
        near = [step for step, at in tokens_at.items() if abs(at - tokens) <= NEAR * tokens]
        best = min(near, key=lambda step: abs(tokens_at[step] - tokens), default=None)
        return [row for row in mine if row[1].step == best]

    def result(self, trial: int, index: int) -> Mapping[str, Any] | None:
        """A trial's newest result by report `index`."""
        for report in reversed(self.past.reports[: index + 1]):
            for row in report["results"]:
                if row["trial"] == trial:
                    return row
        return None

    def _rank(self, row: tuple[int, Taken]) -> tuple[bool, float, int]:
        trial, taken = row
        found = self.result(trial, taken.index) or {}
        plan = self.past.plans[taken.index]["assignments"]
        beside = any(each["trial"] == trial and each.get("group") == "fixed" for each in plan)
        return beside, self._loss(found.get("loss")), trial

    def _steps(self, mine: Iterable[tuple[int, Taken]]) -> str:
        steps: dict[int, str] = {}
        for _, taken in mine:
            why = self.about[taken.index].get(KEEP)
            steps[taken.step] = (
                f"{taken.step} ({why})" if why else steps.get(taken.step, str(taken.step))
            )
        return f"steps that were kept: {', '.join(text for _, text in sorted(steps.items()))}"

    @property
    def _name(self) -> str:
        return str(self.past.path.parent)

    @staticmethod
    def _loss(value: Any) -> float:
        return value if isinstance(value, int | float) and math.isfinite(value) else math.inf


def populations(
    metadata: Mapping[str, Any],
) -> Iterable[tuple[str, Sequence[int | None], Sequence[int]]]:
    """Name of each population in a checkpoint ("": the only one), its trials and their steps."""
    if "groups" in metadata:
        for name, places in metadata["groups"].items():
            yield name, places["trials"], places["steps"]
    elif "trials" in metadata:
        yield "", metadata["trials"], metadata["steps"]
