"""Published recipes by name: schedule, optimizer, decay and clipping as their authors state them.

What an author does not state is left out, and then the default of the run holds.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from jaxhpo.config.fields import suggest
from jaxhpo.errors import UsageError
from jaxhpo.schedules.config import ScheduleConfig

if TYPE_CHECKING:
    from jaxhpo.config.run import Run

C = TypeVar("C", bound="Run")


@dataclass(frozen=True)
class Recipe:
    """One published training recipe; `length` is that of its run, in the schedule's unit.

    `verified` says what was read: "primary" (the authors' code, paper or model card), or which
    parts were not. `batches` are `(tokens seen, tokens in a step from then on)`, or there is a
    `ramp` of (samples in the first batch, in the last, increment, until so many samples, tokens of
    a sample).
    """

    schedule: ScheduleConfig
    length: float
    source: str
    batches: tuple[tuple[int, int], ...] = ()
    ramp: tuple[int, int, int, int, int] | None = None
    optimizer: Mapping[str, Any] = field(default_factory=dict)
    verified: str = "primary"
    note: str = ""

    def scaled(self, steps: int) -> ScheduleConfig:
        """The schedule of a run of `steps`: every length keeps its share of the run."""
        return self.schedule.scaled(steps, self.length)


def recipe(name: str) -> Recipe:
    """The recipe of this name. Raises UsageError naming the nearest."""
    if not isinstance(name, str) or name not in RECIPES:
        raise UsageError(f"recipe={name}: no such recipe; {suggest(str(name), RECIPES)}")
    return RECIPES[name]


def with_recipe(config: C, name: str) -> C:
    """The config with a recipe's schedule, scaled to its `steps`, and its optimizer's numbers.

    >>> from jaxhpo.config import TrainRun
    >>> with_recipe(TrainRun(steps=1000), "bert").schedule.warmup_steps
    10.0
    """
    found = recipe(name)
    optimizer = dataclasses.replace(config.optimizer, **found.optimizer)
    return dataclasses.replace(config, schedule=found.scaled(config.steps), optimizer=optimizer)


def _adamw(**numbers: float) -> dict[str, Any]:
    return {"kind": "adamw", **numbers}


_B, _T, _M = 10**9, 10**12, 2**20
_SAMPLE = 2048
_GPT_3 = _adamw(beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, clip_norm=1.0)
_LLAMA_2 = _adamw(beta1=0.9, beta2=0.95, eps=1e-5, weight_decay=0.1, clip_norm=1.0)
_DEEPSEEK = _adamw(beta1=0.9, beta2=0.95, weight_decay=0.1, clip_norm=1.0)


def _llama_2(peak_lr: float) -> Recipe:
    return Recipe(
        ScheduleConfig(kind="cosine", peak_lr=peak_lr, warmup_steps=2000.0, floor=0.1),
        length=2 * _T / (4 * _M),
        batches=((0, 4 * _M),),
        optimizer=_LLAMA_2,
        source="Touvron et al. 2023 (arXiv 2307.09288), section 2.2 and table 1",
        note="2T tokens in batches of 4M, read as 1024 sequences of 4096",
    )


def _deepseek(peak_lr: float, sequences: int) -> Recipe:
    batch = sequences * 4096
    schedule = ScheduleConfig(
        kind="multi_step",
        peak_lr=peak_lr,
        warmup_steps=2000.0,
        milestones=(1.6 * _T / batch, 1.8 * _T / batch),
        milestone_factor=10**-0.5,
    )
    return Recipe(
        schedule,
        length=2 * _T / batch,
        batches=((0, batch),),
        optimizer=_DEEPSEEK,
        source="DeepSeek-AI 2024 (arXiv 2401.02954); README of deepseek-ai/DeepSeek-LLM",
        note="31.6% and 10% of the peak after 80% and 90% of the tokens; epsilon is not stated",
    )


_LLAMA_3_BATCHES = ((0, 4 * _M), (252 * 10**6, 8 * _M), (2_870 * _B, 16 * _M))
_LLAMA_3 = "Llama Team 2024 (arXiv 2407.21783), section 3.4"
_LONG = 800 * _B / (16 * _M)
_ANNEAL = 40 * 10**6 / (16 * _M)


def _llama_3_stage(
    schedule: ScheduleConfig,
    length: float,
    note: str,
    verified: str = "primary",
    batches: tuple[tuple[int, int], ...] = ((0, 16 * _M),),
) -> Recipe:
    return Recipe(schedule, length, _LLAMA_3, batches, None, {"kind": "adamw"}, verified, note)


RECIPES: dict[str, Recipe] = {
    "bert": Recipe(
        ScheduleConfig(
            kind="sequence",
            peak_lr=1e-4,
            warmup_steps=10_000.0,
            phases=("linear 990000 from 0.99 to 0",),
        ),
        length=1_000_000,
        batches=((0, 256 * 128), (900_000 * 256 * 128, 256 * 512)),
        optimizer=_adamw(beta1=0.9, beta2=0.999, eps=1e-6, weight_decay=0.01, clip_norm=1.0),
        source="Devlin et al. 2019 (arXiv 1810.04805), its model card; google-research/bert, "
        "optimization.py",
        note="its code counts the decay from step 0, so the rate drops by 1% after the warm-up; "
        "its Adam has no bias correction, ours has",
    ),
    "gpt-3": Recipe(
        ScheduleConfig(
            kind="cosine",
            unit="tokens",
            peak_lr=0.6e-4,
            warmup_steps=375e6,
            decay_steps=260e9 - 375e6,
            floor=0.1,
        ),
        length=300 * _B,
        batches=((0, 3_200_000),),
        optimizer=_GPT_3,
        source="Brown et al. 2020 (arXiv 2005.14165), table 2.1 and appendix B; 175B",
        note="the linear batch ramp from 32k tokens over the first 4-12B tokens is left out: its "
        "increments are not published",
    ),
    "bloom-176b": Recipe(
        ScheduleConfig(
            kind="cosine",
            unit="tokens",
            peak_lr=6e-5,
            warmup_steps=183_105.0 * _SAMPLE,
            decay_steps=(200_000_000.0 - 183_105.0) * _SAMPLE,
            floor=0.1,
        ),
        length=220_000_000 * _SAMPLE,
        ramp=(192, 2048, 16, 9_765_625, _SAMPLE),
        optimizer=_GPT_3,
        source="bigscience-workshop/bigscience, train/tr11-176B-ml/tr11-176B-ml.slurm",
        note="decays over 410B of its 450B tokens, then holds the floor; its published log lines "
        "agree",
    ),
    "llama-2": _llama_2(3e-4),
    "llama-2-70b": _llama_2(1.5e-4),
    "llama-3-405b": _llama_3_stage(
        ScheduleConfig(
            kind="sequence",
            peak_lr=8e-5,
            warmup_steps=8000.0,
            phases=(
                "cosine 1192000 to 0.01",
                f"hold {_LONG:.9g}",
                f"linear {_ANNEAL:.9g} to 0",
            ),
        ),
        1_200_000 + _LONG + _ANNEAL,
        "pre-training, long context, annealing; the full horizon of the cosine, though the run "
        "probably left it earlier; the printed 40M tokens of annealing are under three steps",
        verified="primary, but for the rate during the long-context stage, which is not stated",
        batches=_LLAMA_3_BATCHES,
    ),
    "llama-3-405b-pretraining": _llama_3_stage(
        ScheduleConfig(kind="cosine", peak_lr=8e-5, warmup_steps=8000.0, floor=0.01),
        1_200_000,
        "stage 1 alone; betas, epsilon, decay and clipping are not stated",
        batches=_LLAMA_3_BATCHES,
    ),
    "llama-3-405b-long-context": _llama_3_stage(
        ScheduleConfig(kind="constant", peak_lr=8e-7, warmup_steps=0.0),
        _LONG,
        "stage 2 alone: about 800B tokens, here at the last rate of stage 1",
        verified="the length only: the rate is not stated",
    ),
    "llama-3-405b-annealing": _llama_3_stage(
        ScheduleConfig(kind="linear", peak_lr=8e-7, warmup_steps=0.0),
        _ANNEAL,
        "stage 3 alone: linearly to zero, over 40M tokens as printed; scale it to what you have",
        verified="primary, but for the rate it begins at, which is not stated",
    ),
    "minicpm": Recipe(
        ScheduleConfig(
            kind="wsd",
            peak_lr=0.01,
            warmup_steps=0.0,
            decay_start=263_000.0,
            decay_steps=263_000.0 / 9,
            decay_shape="exponential",
            half_life=5000.0,
        ),
        length=263_000 / 0.9,
        batches=((0, 3_930_000),),
        source="Hu et al. 2024 (arXiv 2404.06395)",
        verified="primary, but for the warm-up and the optimizer's numbers, which are not stated",
        note="the peak holds for its muP scaling only; the decay is a tenth of the run",
    ),
    "deepseek-llm-7b": _deepseek(4.2e-4, 2304),
    "deepseek-llm-67b": _deepseek(3.2e-4, 4608),
}
"""Name -> recipe."""
