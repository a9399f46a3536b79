"""PatchMerger: learned queries gather what they look for from all rows (arXiv 2202.12015).

As ported in CLCA (arkel23/CLCA, models/patchmerger.py): before the block, on every row behind CLS
and registers, CLR and cached ones too. What comes out are normalised features: the scale of the
residual stream is lost.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fgdeploy.models.reduce.layers import Product
from fgdeploy.models.reduce.mixing import MixAll, Mixer
from fgdeploy.models.reduce.reduction import ReducedOptions, Reduction, Slot
from fgdeploy.models.walk import Step


class Merger(Mixer):
    """K queries [K, D]: softmax(Q LN(x)^T) LN(x), not scaled."""

    def __init__(self, width: int, keep: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(keep, width))
        self.norm = nn.LayerNorm(width)
        self.match, self.gather = Product(), Product()

    def forward(self, x: Tensor) -> Tensor:
        """Return K rows [B, K, D] of x [B, T, D]."""
        rows = self.norm(x)
        gathered: Tensor = self.gather(self._asked(rows), rows)
        return gathered

    def shares(self, x: Tensor) -> Tensor:
        """Return how much of each row a query gathers, [B, K, T]."""
        return self._asked(self.norm(x))

    def _asked(self, rows: Tensor) -> Tensor:
        found: Tensor = self.match(self.queries, rows.transpose(1, 2)).softmax(dim=2)
        return found


def _make(slot: Slot, options: ReducedOptions) -> Step:
    keep = int(slot.patches * slot.of_all)
    return MixAll(keep, Merger(slot.width, keep))


REDUCTION = Reduction(
    name="patchmerger",
    make=_make,
    source="arXiv 2202.12015, as in arkel23/CLCA",
)
