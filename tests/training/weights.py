"""Two trainings compared by what they left."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file


def same_weights(one: Path, two: Path) -> bool:
    """Return whether two files hold the same tensors, to the bit."""
    a, b = load_file(one), load_file(two)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
