"""A small export for all tests of the room."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fgdeploy.export.export_settings import ExportSettings

TINY = "deit_tiny_patch16_224"
MINI = "test_vit"  # timm's own test model: 6 blocks of width 64
RANDOM = ExportSettings(
    backbone=MINI,
    weights="random",
    image_size=64,
    options={"stages": "2:8,4:4,5:2"},
    bits=12,
    head="lsh",
)
# What EET with a fitted head can be simplified by; `fold-hash-head` is of the trained head.
NAMES = ("fold-normalisation", "early-gather", "cls-row", "cls-last")


def frames_of(count: int, size: int) -> npt.NDArray[np.uint8]:
    """Return frames of noise."""
    return np.random.default_rng(7).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
