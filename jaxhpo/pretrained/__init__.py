"""Models of the Hugging Face format."""

from jaxhpo._lazy import attach

__getattr__, __all__ = attach(
    __name__, {"read_shape": "shapes", "save_adapter": "peft", "load_adapter": "peft"}
)
