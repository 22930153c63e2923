"""Joins a scheduler, the engine, the data and the record."""

from jaxhpo._lazy import attach

__getattr__, __all__ = attach(
    __name__,
    {
        "execute": "runs",
        "resume": "runs",
        "plan": "forecast",
        "Outcome": "outcome",
        "Study": "loop",
        "discovered_schedule": "rates",
    },
)
