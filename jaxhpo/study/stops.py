"""Steps whose state is kept for good, so that segments end there."""

from collections.abc import Collection

from jaxhpo.config.forks import STABLE_END
from jaxhpo.config.run import Run
from jaxhpo.errors import UsageError
from jaxhpo.study.origin import Origin

FORK_POINT = "fork point"


def always_kept(config: Run, stable_end: int | None, origin: Origin | None) -> dict[int, str]:
    """Step -> why its checkpoint is kept for good. Raises UsageError where none can be made."""
    first = min(child.start for child in origin.children) if origin else 0
    last = origin.total_steps if origin else config.steps
    for step in config.checkpoint.keep_steps:
        if not first < step <= last:
            raise UsageError(
                f"checkpoint.keep_steps={step}; allowed: above {first}, up to {last}, the last"
            )
    if config.checkpoint.keep_steps and origin is not None and len(origin.children) > 1:
        raise UsageError(
            "checkpoint.keep_steps with several children, which are at different steps; fork one"
        )
    found = dict.fromkeys(config.checkpoint.keep_steps, FORK_POINT)
    ends = [stable_end] if origin is None else origin.stops
    found |= {end: STABLE_END for end in ends if end is not None and first < end < last}
    return dict(sorted(found.items()))


def check_ends(config: Run, ends: Collection[int]) -> None:
    """Raises UsageError where no segment of a population ends at a step that is to be kept."""
    for step in config.checkpoint.keep_steps:
        if step not in ends:
            near = sorted(sorted(ends, key=lambda end: abs(end - step))[:2])
            raise UsageError(
                f"checkpoint.keep_steps={step}: this population stops at other steps, the nearest "
                f"are {' and '.join(map(str, near))}"
            )
