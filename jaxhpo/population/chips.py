"""Accelerators: what they can compute and hold, for estimates of time and number."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Chip:
    """One accelerator: dense bfloat16 operations a second at its peak, and bytes of memory."""

    flops: float
    memory: float
    source: str


_TPU = "cloud.google.com/tpu/docs/"

CHIPS: dict[str, Chip] = {
    "a100": Chip(312e12, 80e9, "NVIDIA A100 80GB SXM data sheet"),
    "h100": Chip(989.4e12, 80e9, "NVIDIA H100 SXM data sheet, without sparsity"),
    "tpu-v4": Chip(275e12, 32e9, f"{_TPU}v4"),
    "tpu-v5e": Chip(197e12, 16e9, f"{_TPU}v5e"),
    "tpu-v5p": Chip(459e12, 95e9, f"{_TPU}v5p"),
    "tpu-v6e": Chip(918e12, 32e9, f"{_TPU}v6e"),
}
"""Name -> chip."""
