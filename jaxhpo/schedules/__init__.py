"""Learning-rate schedules as data: pytrees that are optax schedules."""

from jaxhpo._lazy import attach

__getattr__, __all__ = attach(
    __name__,
    {
        "ScheduleConfig": "config",
        "Schedule": "phases",
        "Cooled": "phases",
        "Shifted": "shifted",
        "Phase": "phases",
        "pack": "phases",
        "KINDS": "kinds",
        "lower": "kinds",
    },
)
