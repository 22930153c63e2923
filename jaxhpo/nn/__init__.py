"""Flax transformer, losses, sizes and decoding: pure functions of arrays."""

from jaxhpo._lazy import attach

__getattr__, __all__ = attach(
    __name__,
    {
        "DropoutConfig": "config",
        "HeadConfig": "config",
        "LossConfig": "config",
        "ModelConfig": "config",
        "RopeConfig": "config",
        "Dropout": "hyperparams",
        "LossTerms": "hyperparams",
        "Adapter": "adapted",
        "init": "transformer",
        "apply": "transformer",
        "init_head": "heads",
        "head_tensors": "heads",
        "read": "heads",
        "states": "transformer",
        "cross_entropy": "losses",
        "loss": "losses",
        "count_parameters": "sizes",
        "parameter_bytes": "sizes",
        "tensors": "sizes",
        "flops_per_token": "sizes",
        "activation_bytes": "sizes",
        "laid_out": "cache",
    },
)
