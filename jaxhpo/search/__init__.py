"""Searches: spaces of hyperparameters, and schedulers that fold reports into plans. Never jax."""

from jaxhpo._lazy import attach

__getattr__, __all__ = attach(
    __name__,
    {
        "KEEP_ALL": "plan",
        "Assignment": "plan",
        "Extent": "plan",
        "Parent": "plan",
        "Plan": "plan",
        "Point": "plan",
        "Report": "plan",
        "Result": "plan",
        "Scheduler": "plan",
        "Value": "plan",
        "Choice": "distributions",
        "Integer": "distributions",
        "Log": "distributions",
        "LogInteger": "distributions",
        "Normal": "distributions",
        "Uniform": "distributions",
        "Dimension": "space",
        "Space": "space",
        "PbtConfig": "config",
        "SearchConfig": "config",
        "Pbt": "pbt",
        "Fixed": "fixed",
        "Replay": "replay",
        "lineage_points": "replay",
        "Together": "together",
        "beside_fixed": "together",
        "SCHEDULERS": "table",
        "make": "table",
        "Journal": "journal",
        "Memory": "journal",
    },
)
