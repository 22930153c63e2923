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
        "SHAPES": "shapes",
        "constant": "kinds",
        "linear": "kinds",
        "polynomial": "kinds",
        "cosine": "kinds",
        "inverse_sqrt": "kinds",
        "noam": "kinds",
        "wsd": "kinds",
        "multi_step": "kinds",
        "sequence": "kinds",
        "cyclic_cosine": "cycles",
        "cyclic_wsd": "cycles",
        "growing": "cycles",
        "KINDS": "lowering",
        "lower": "lowering",
        "lower_to": "lowering",
        "table_size": "lowering",
        "Batches": "batches",
        "OverTokens": "batches",
        "in_steps": "batches",
        "over_tokens": "batches",
        "ramp": "batches",
        "Spliced": "spliced",
        "splice": "spliced",
    },
)
