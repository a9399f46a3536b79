"""SiT: a small network says how all rows are mixed into fewer (arXiv 2111.11591).

'Self-slimmed Vision Transformer', its token slimming module as ported in CLCA (arkel23/CLCA,
models/sit.py): before the block, on every row behind CLS and registers, CLR and cached ones too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fgdeploy.models.reduce.layers import Product, SmallLinear
from fgdeploy.models.reduce.mixing import MixAll, Mixer
from fgdeploy.models.reduce.reduction import ReducedOptions, Reduction, Slot
from fgdeploy.models.walk import Step


class Slimming(Mixer):
    """K mixtures of T rows: softmax over the rows of scale * MLP(x), transposed, times x."""

    def __init__(self, width: int, keep: int) -> None:
        super().__init__()
        self.weight = nn.Sequential(
            nn.LayerNorm(width),
            SmallLinear(width, width // 2),
            nn.GELU(),
            SmallLinear(width // 2, keep),
        )
        self.scale = nn.Parameter(torch.ones(1, 1, 1))
        self.mix = Product()

    def forward(self, x: Tensor) -> Tensor:
        """Return K rows [B, K, D] of x [B, T, D]."""
        mixed: Tensor = self.mix(self.shares(x), x)
        return mixed

    def shares(self, x: Tensor) -> Tensor:
        """Return how much each row weighs in each mixture, [B, K, T]."""
        shares: Tensor = (self.weight(x) * self.scale).softmax(dim=1)
        return shares.transpose(1, 2)


def _make(slot: Slot, options: ReducedOptions) -> Step:
    keep = int(slot.patches * slot.of_all)
    return MixAll(keep, Slimming(slot.width, keep))


REDUCTION = Reduction(
    name="sit",
    make=_make,
    source="arXiv 2111.11591, as in arkel23/CLCA",
)
