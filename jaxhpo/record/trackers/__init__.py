"""Who is told how a run is going: the console, Weights & Biases, nobody."""

from jaxhpo._lazy import attach

_NAMES = {
    "TRACKERS": "table",
    "make_tracker": "table",
    "Composite": "composite",
    "Console": "console",
    "NoTracker": "noop",
    "Wandb": "wandb",
    "Exploit": "protocol",
    "RunInfo": "protocol",
    "Snapshot": "protocol",
    "Summary": "protocol",
    "Tracker": "protocol",
    "TrialResult": "protocol",
}

__getattr__, __all__ = attach(__name__, _NAMES)
