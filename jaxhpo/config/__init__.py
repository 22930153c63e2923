"""The config of a run: typed, frozen, strict, and addressed by dotted names."""

from jaxhpo._lazy import attach

__getattr__, __all__ = attach(
    __name__,
    {
        "Run": "run",
        "PbtRun": "run",
        "SearchRun": "run",
        "TrainRun": "run",
        "ForkRun": "run",
        "FinetuneRun": "finetune",
        "KINDS": "kinds",
        "load": "loading",
        "from_dict": "loading",
        "read_toml": "loading",
        "RECIPES": "recipes",
        "recipe": "recipes",
        "with_recipe": "recipes",
        "to_dict": "dump",
        "to_toml": "dump",
        "difference": "drift",
        "refuse_drift": "drift",
        "class_of": "drift",
        "replace": "names",
        "is_static": "names",
        "traced_names": "names",
        "known_names": "names",
        "searchable_names": "names",
        "flatten": "fields",
        "options": "fields",
        "suggest": "fields",
    },
)
