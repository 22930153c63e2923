"""Members, and the compiled programs that train, evaluate, probe and assemble them."""

from jaxhpo._lazy import attach

__getattr__, __all__ = attach(
    __name__,
    {
        "ExecutionConfig": "config",
        "prepare_backend": "config",
        "Hyperparams": "hyperparams",
        "lower": "hyperparams",
        "Task": "task",
        "LanguageModel": "task",
        "HeadedModel": "headed",
        "AdapterTuning": "tuning",
        "FullTuning": "tuning",
        "Member": "member",
        "Engine": "engine",
        "Rows": "rows",
        "memory_plan": "memory",
    },
)
