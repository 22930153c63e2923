"""Names of data sets that tensorflow-datasets knows, without tensorflow and without a network."""

import difflib
import importlib
from collections.abc import Iterable

from jaxhpo.errors import UsageError

LEGACY = {
    "c4": "text.c4",
    "cnn_dailymail": "summarization.cnn_dailymail",
    "flores": "translate.flores",
    "glue": "text.glue",
    "gsm8k": "text.gsm8k",
    "multi_nli": "text.multi_nli",
    "super_glue": "text.super_glue",
    "wiki40b": "text.wiki40b",
    "wikipedia": "text.wikipedia",
    "wmt14_translate": "translate.wmt14",
    "wmt15_translate": "translate.wmt15",
    "wmt16_translate": "translate.wmt16",
    "wmt17_translate": "translate.wmt17",
    "wmt18_translate": "translate.wmt18",
    "wmt19_translate": "translate.wmt19",
    "wmt_t2t_translate": "translate.wmt_t2t",
    "xnli": "text.xnli",
    "yelp_polarity_reviews": "text.yelp_polarity",
}
"""Name -> module of what the library finds, without tensorflow, only once that is imported."""


def check_known(source: str, name: str, config: str | None, there: Iterable[str]) -> None:
    """Raises UsageError where there is no data set of this name, or it has no such config, with the
    nearest one; `there` are names that are known beside the library's own."""
    import tensorflow_datasets as tfds

    known = {*tfds.list_builders(with_community_datasets=False), *LEGACY, *there}
    if name not in known:
        raise UsageError(f"data.source={source}: there is no data set {name}{_near(name, known)}")
    if name in there or config is None:
        return
    configs = _configs(name)
    if config not in configs:
        shown = ", ".join(sorted(configs)) if 0 < len(configs) <= 12 else ""
        allowed = f"; allowed: {shown}" if shown else ""
        near = _near(config, configs) or allowed
        raise UsageError(f"data.source={source}: the data set {name} has no config {config}{near}")


def _configs(name: str) -> set[str]:
    import tensorflow_datasets as tfds

    if name in LEGACY:
        importlib.import_module(f"tensorflow_datasets.{LEGACY[name]}")
    return set(tfds.builder_cls(name).builder_configs)


def _near(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, sorted(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""
