"""Gradient transformations whose numbers are traced."""

from jaxhpo._lazy import attach

__getattr__, __all__ = attach(
    __name__,
    {
        "OptimizerConfig": "config",
        "ROLES": "config",
        "OptimizerHyperparams": "hyperparams",
        "lower": "hyperparams",
        "present": "hyperparams",
        "RULES": "rules",
        "build": "chains",
        "scale_by_adam": "adam",
        "clip_by_tensor_norm": "clipping",
        "clip_by_role_norm": "clipping",
        "clipped": "clipping",
        "by_layer": "layers",
        "convert_decay": "decay",
        "diagnose": "diagnostics",
        "decay_shares": "masks",
        "state_bytes": "sizes",
    },
)
