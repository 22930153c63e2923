"""Trackers by name, and those that a config asks for."""

from collections.abc import Callable
from typing import TextIO

from jaxhpo.record.config import TrackerConfig
from jaxhpo.record.trackers.composite import Composite
from jaxhpo.record.trackers.console import Console
from jaxhpo.record.trackers.noop import NoTracker
from jaxhpo.record.trackers.protocol import Tracker
from jaxhpo.record.trackers.wandb import Wandb

TRACKERS: dict[str, type[Tracker]] = {"console": Console, "wandb": Wandb, "none": NoTracker}


def make_tracker(config: TrackerConfig, stream: TextIO | None = None) -> Composite:
    """The trackers of a config as one; `stream` is where the console writes (default: stdout)."""
    trackers: list[Tracker] = []
    note: Callable[[str], None] = NoTracker().note
    if config.console != "off":
        trackers.append(Console(config.console, stream))
        note = trackers[0].note
    if config.wandb != "off":
        mirror = Wandb(
            config.wandb,
            config.wandb_project,
            per_trial=config.wandb_per_trial,
            fork=config.wandb_fork,
            timeout=config.wandb_timeout,
            note=note,
        )
        trackers.append(mirror)
    return Composite(trackers or [NoTracker()])
