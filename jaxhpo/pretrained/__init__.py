"""Models of the Hugging Face format, in and out."""

from jaxhpo._lazy import attach

__getattr__, __all__ = attach(
    __name__,
    {
        "read_shape": "shapes",
        "load": "loading",
        "Pretrained": "loading",
        "save_adapter": "peft",
        "load_adapter": "peft",
        "save": "saving",
    },
)
