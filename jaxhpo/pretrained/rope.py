"""Rotary positions in a config.json: the old form, the new one, and back."""

import math
from typing import Any

from jaxhpo.errors import UsageError
from jaxhpo.nn.config import ModelConfig, RopeConfig
from jaxhpo.pretrained.config_json import ConfigJson

KINDS = ("default", "linear", "dynamic", "llama3", "yarn")


def read_rope(table: ConfigJson, context: int) -> tuple[float, RopeConfig]:
    """Base and scaling. Old files have `rope_theta` and `rope_scaling`, new ones
    `rope_parameters`.

    Dynamic scaling stretches only texts longer than the context: within it there is none.
    """
    section = table.section("rope_parameters") or table.section("rope_scaling")
    theta = table.number("rope_theta", default=10000.0)
    if section is None:
        return theta, RopeConfig()
    theta = section.number("rope_theta", default=theta)
    if table.number("partial_rotary_factor", default=1.0) != 1.0:
        table.refuse("partial_rotary_factor", table.table["partial_rotary_factor"], "1.0")
    elif section.number("partial_rotary_factor", default=1.0) != 1.0:
        table.refuse("partial_rotary_factor", section.table["partial_rotary_factor"], "1.0")
    kind = section.table.get("rope_type", section.table.get("type", "default"))
    if kind not in KINDS:
        table.refuse("rope_type", kind, ", ".join(KINDS))
        return theta, RopeConfig()
    if kind in ("default", "dynamic"):
        return theta, RopeConfig()
    try:
        return theta, _scaling(kind, section, context)
    except UsageError as error:
        raise UsageError(f"{table.path}: {error}") from None


def _scaling(kind: str, section: ConfigJson, context: int) -> RopeConfig:
    factor = section.number("factor", default=1.0)
    original = section.whole("original_max_position_embeddings", default=context)
    if kind == "linear":
        return RopeConfig(scaling="linear", factor=factor)
    if kind == "llama3":
        return RopeConfig(
            scaling="llama3",
            factor=factor,
            original_context=original,
            low_freq_factor=section.number("low_freq_factor", default=1.0),
            high_freq_factor=section.number("high_freq_factor", default=4.0),
        )
    given = section.table.get("attention_factor")
    scale = None if given is None else section.number("attention_factor", default=1.0)
    top = section.number("mscale", default=0.0)
    bottom = section.number("mscale_all_dim", default=0.0)
    if scale is None and top and bottom:
        grown = lambda by: 1.0 + 0.1 * by * math.log(factor)
        scale = grown(top) / grown(bottom)
    return RopeConfig(
        scaling="yarn",
        factor=factor,
        original_context=original,
        beta_fast=section.number("beta_fast", default=32.0),
        beta_slow=section.number("beta_slow", default=1.0),
        truncate=section.flag("truncate", True),
        attention_factor=scale,
    )


def rope_table(config: ModelConfig) -> dict[str, Any]:
    """The entries of a config.json for a model's rotary positions, in both forms."""
    rope = config.rope
    kind = "default" if rope.scaling == "none" else rope.scaling
    found: dict[str, Any] = {"rope_type": kind}
    if kind != "default":
        found["factor"] = rope.factor
    if kind in ("llama3", "yarn"):
        found["original_max_position_embeddings"] = rope.original_context
    if kind == "llama3":
        found |= {name: getattr(rope, name) for name in ("low_freq_factor", "high_freq_factor")}
    if kind == "yarn":
        found |= {name: getattr(rope, name) for name in ("beta_fast", "beta_slow", "truncate")}
        if rope.attention_factor is not None:
            found["attention_factor"] = rope.attention_factor
    return {
        "rope_theta": config.rope_theta,
        "rope_scaling": None if kind == "default" else found,
        "rope_parameters": {**found, "rope_theta": config.rope_theta},
    }
