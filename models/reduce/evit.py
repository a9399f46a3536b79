"""EViT: the rows that CLS attends to most stay, all others become one (arXiv 2202.07800).

As ported in CLCA (arkel23/CLCA, models/evit.py): between attention and MLP, k = ceil(rate (T - 1))
of the T rows that arrive; CLS stays, everything else may go, registers and cached rows too. The
fused row has no position: where positions are rotary it is not turned (ours; the paper's backbones
have learned ones).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fgdeploy.models.backbone import blocks
from fgdeploy.models.backbone.blocks import Attended, Block
from fgdeploy.models.reduce.order import Chosen, positions
from fgdeploy.models.reduce.reduction import ReducedOptions, Reduction, Slot
from fgdeploy.models.reduce.scores import ByCLS
from fgdeploy.models.simplify import Simplification
from fgdeploy.models.tokens import Tokens
from fgdeploy.models.walk import Step

FUSED_ROW = Simplification(
    "fused-row",
    "proj is linear, so a weighted sum of rows may be taken before it",
    "proj of every row that is fused, and telling which rows these are",
)


class EViT(Step):
    """Keep k rows and the weighted sum of the rest: CLS, k, 1. rate: of the rows behind CLS."""

    simplifications = (FUSED_ROW,)

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.select = ByCLS()

    def forward(self, block: Block, tokens: Tokens) -> Tokens:
        """Run the block and return the tokens that stay."""
        attended = blocks.attend(block, tokens.x, tokens.bias(), tokens.places)
        tokens = tokens.seeing(attended)
        keep = math.ceil(self.rate * (tokens.count - 1))
        if keep >= tokens.count - 1:
            return tokens.having(blocks.complete(block, attended))
        chosen, scores = self.select(attended.q, attended.k, attended.bias, keep)
        x = self._merged(block, attended, chosen, scores)
        x = blocks.feed_forward(block, x)
        origin = tokens.traced(lambda rows: _taken(rows, chosen, _fusing(chosen, scores)))
        places = tokens.places_of(chosen.rows, 1, more=1)
        return tokens.having(x, prefix=1, suffix=0, origin=origin, places=places)

    def _merged(self, block: Block, attended: Attended, chosen: Chosen, scores: Tensor) -> Tensor:
        """Return CLS, kept rows and fused row behind attention and proj."""
        weights = _fusing(chosen, scores)
        linear = blocks.linear_behind_attention(block)
        if self.acts(FUSED_ROW) and linear:
            x, out = (_taken(part, chosen, weights) for part in (attended.x, attended.out))
            return blocks.merge(block, x, out, weights.sum(dim=2, keepdim=True) - 1)
        whole = blocks.merge(block, attended.x, attended.out)
        others = positions(1 - chosen.mask, scores.shape[1] - chosen.rows.shape[1])
        fused = weights.gather(2, others.unsqueeze(1)) @ blocks.take_rows(whole, others, 1)[:, 1:]
        return torch.cat([blocks.take_rows(whole, chosen.rows, 1), fused], dim=1)


def _fusing(chosen: Chosen, scores: Tensor) -> Tensor:
    """Return the weights of the fused row, [B, 1, T - 1]; kept rows weigh nothing."""
    return (scores * (1 - chosen.mask)).unsqueeze(1)


def _taken(rows: Tensor, chosen: Chosen, weights: Tensor) -> Tensor:
    """Return CLS, the kept ones of rows [B, T, D], and the sum of all by their weights."""
    return torch.cat([blocks.take_rows(rows, chosen.rows, 1), weights @ rows[:, 1:]], dim=1)


def _make(slot: Slot, options: ReducedOptions) -> Step:
    return EViT(slot.of_arriving)


REDUCTION = Reduction(
    name="evit",
    make=_make,
    source="arXiv 2202.07800, as in arkel23/CLCA",
    pins=("steps.*select/*",),
    arriving=True,
)
