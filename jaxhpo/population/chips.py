"""Accelerators: what they can compute, hold and send, for estimates and for utilisation."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Chip:
    """One accelerator, as its maker states it: dense, at its peak, without sparsity.

    `kinds` are what JAX calls it (`device.device_kind`). All are per chip and second, or bytes.
    """

    flops: float
    """bfloat16 operations"""
    float32: float
    """the same on float32 arrays as XLA multiplies them unless told otherwise: in TF32 on a GPU, in
    bfloat16 on a TPU (jax.lax.Precision.DEFAULT)"""
    memory: float
    source: str
    kinds: tuple[str, ...]
    link: float | None = None
    """bytes that a chip sends over one axis of a mesh, in one direction, inside a host or a slice:
    half of what is sold as bidirectional; of a TPU's torus the two ports of one ring"""

    def peak(self, dtype: str) -> float:
        """Operations a second on arrays of a compute dtype."""
        return self.flops if dtype == "bfloat16" else self.float32


_TPU = "cloud.google.com/tpu/docs/"

CHIPS: dict[str, Chip] = {
    "a100": Chip(
        312e12,
        156e12,
        80e9,
        "NVIDIA A100 80GB SXM data sheet",
        ("NVIDIA A100-SXM4-80GB", "NVIDIA A100-SXM4-40GB", "NVIDIA A100 80GB PCIe"),
        300e9,
    ),
    "h100": Chip(
        989.4e12,
        494.7e12,
        80e9,
        "NVIDIA H100 SXM data sheet, without sparsity",
        ("NVIDIA H100 80GB HBM3",),
        450e9,
    ),
    "h200": Chip(
        989.4e12,
        494.7e12,
        141e9,
        "NVIDIA H200 SXM data sheet, without sparsity",
        ("NVIDIA H200",),
        450e9,
    ),
    "tpu-v4": Chip(275e12, 275e12, 32e9, f"{_TPU}v4", ("TPU v4",)),
    "tpu-v5e": Chip(197e12, 197e12, 16e9, f"{_TPU}v5e", ("TPU v5 lite", "TPU v5e"), 100e9),
    "tpu-v5p": Chip(459e12, 459e12, 95e9, f"{_TPU}v5p", ("TPU v5", "TPU v5p"), 200e9),
    "tpu-v6e": Chip(918e12, 918e12, 32e9, f"{_TPU}v6e", ("TPU v6 lite", "TPU v6e"), 200e9),
}
"""Name -> chip: the one table of peaks."""


def chip_of(device_kind: str) -> tuple[str, Chip] | None:
    """Name and chip of what JAX calls a device; None of a CPU, and of what is not in the table.

    >>> chip_of("TPU v5 lite")[0], chip_of("cpu")
    ('tpu-v5e', None)
    """
    return next(((name, chip) for name, chip in CHIPS.items() if device_kind in chip.kinds), None)


@dataclass(frozen=True)
class Peak:
    """What utilisation is measured against: operations a second of one device, and who says so."""

    flops: float
    source: str


def peak_of(device_kind: str, dtypes: Sequence[str], stated: float | None = None) -> Peak | None:
    """The peak of a device: as `stated` by a person, else of the known chip, else None.

    Where models of several compute dtypes train, the largest counts.
    """
    if stated is not None:
        return Peak(stated, "tracker.peak_flops")
    found = chip_of(device_kind)
    if found is None:
        return None
    name, chip = found
    dtype = max(dtypes, key=chip.peak, default="float32")
    return Peak(chip.peak(dtype), f"{name} in {dtype}: {chip.source}")
