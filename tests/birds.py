"""Real photos and real weights, where they are at hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("FGDEPLOY_SHARED", Path(__file__).parents[2] / "shared"))
BIRDS = SHARED / "data" / "cub100_bboxcrop"
WEIGHTS = SHARED / "weights" / "deit_tiny_patch16_224_ln-rounded.pth"

NEEDS_BIRDS = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (BIRDS.is_dir() and WEIGHTS.is_file()),
        reason=f"needs the bird photos and DeiT-Tiny weights in {SHARED} (FGDEPLOY_SHARED)",
    ),
]
