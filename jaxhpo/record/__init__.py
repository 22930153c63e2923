"""What a run leaves behind: run directory, event log, checkpoints, trackers, stop signals."""

from jaxhpo._lazy import attach

_NAMES = {
    "CheckpointConfig": "config",
    "TrackerConfig": "config",
    "RunDirectory": "directory",
    "safe_join": "paths",
    "EventLog": "log",
    "LogError": "log",
    "read": "log",
    "shortest": "log",
    "History": "history",
    "CheckpointError": "checkpoints",
    "Restored": "checkpoints",
    "Store": "checkpoints",
    "StopSignals": "signals",
    "redact": "redaction",
    "redact_text": "redaction",
}

__getattr__, __all__ = attach(__name__, _NAMES)
