"""LoRA, DoRA, AdaLoRA and AdaMoLE: trained arrays beside a frozen base, as pure functions."""

from jaxhpo._lazy import attach

__getattr__, __all__ = attach(
    __name__,
    {
        "AdapterConfig": "config",
        "AdapterHyperparams": "hyperparams",
        "present": "hyperparams",
        "lower": "hyperparams",
        "targets_of": "arrays",
        "tensors": "arrays",
        "init": "arrays",
        "bind": "binding",
        "allocate": "allocation",
        "ranks": "allocation",
        "merge": "merging",
        "to_peft": "peft",
        "from_peft": "peft",
        "store": "storage",
        "restore": "storage",
        "stored_bytes": "storage",
    },
)
