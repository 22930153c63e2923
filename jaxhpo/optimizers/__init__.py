"""Gradient transformations whose numbers are traced."""

from jaxhpo._lazy import attach

__getattr__, __all__ = attach(
    __name__,
    {
        "OptimizerConfig": "config",
        "OptimizerHyperparams": "hyperparams",
        "OPTIMIZERS": "chains",
        "build": "chains",
        "scale_by_adam": "adam",
        "lower": "hyperparams",
    },
)
