"""Figures and the report page of a run directory; never imports jax."""

from jaxhpo._lazy import attach

__getattr__, __all__ = attach(
    __name__,
    {
        "write_report": "page",
        "summarise": "summary",
        "trace": "tracing",
        "final_results": "lineage",
        "inherited_curve": "lineage",
        "FIGURES": "figures",
        "draw": "figures",
    },
)
