"""Top-K: the rows that CLS attends to most stay, all others go (EViT without its fused row).

As in CLCA (arkel23/CLCA, models/topk.py): between attention and MLP, k = ceil(rate (T - 1)) of the
T rows that arrive; CLS stays, everything else may go, registers and cached rows too.
"""

from __future__ import annotations

import math

from fgdeploy.models.backbone import blocks
from fgdeploy.models.backbone.blocks import Block
from fgdeploy.models.reduce.reduction import ReducedOptions, Reduction, Slot
from fgdeploy.models.reduce.scores import FEW_QUERIES, ByCLS
from fgdeploy.models.tokens import Tokens
from fgdeploy.models.walk import Step


class TopK(Step):
    """Keep CLS and k rows, in rising order. rate: of the rows behind CLS."""

    simplifications = (FEW_QUERIES,)

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.select = ByCLS()

    def forward(self, block: Block, tokens: Tokens) -> Tokens:
        """Run the block and return the tokens that stay."""
        keep = math.ceil(self.rate * (tokens.count - 1))
        if keep >= tokens.count - 1:
            return super().forward(block, tokens)
        if self.acts(FEW_QUERIES):
            return self._of_few(block, tokens, keep)
        attended = blocks.attend(block, tokens.x, tokens.bias(), tokens.places)
        tokens = tokens.seeing(attended)
        chosen, _ = self.select(attended.q, attended.k, attended.bias, keep)
        x = blocks.take_rows(blocks.merge(block, attended.x, attended.out), chosen.rows, 1)
        x = blocks.feed_forward(block, x)
        origin = tokens.traced(lambda rows: blocks.take_rows(rows, chosen.rows, 1))
        places = tokens.places_of(chosen.rows, 1)
        return tokens.having(x, prefix=1, suffix=0, origin=origin, places=places)

    def _of_few(self, block: Block, tokens: Tokens, keep: int) -> Tokens:
        """Choose by the attention of CLS, and go on with the rows that stay."""
        y, bias = blocks.enter_attention(block, tokens.x), tokens.bias()
        k, v = blocks.keys_values(block, y, tokens.places)
        chosen, _ = self.select(blocks.queries(block, y[:, :1], tokens.cls_place), k, bias, keep)
        places = tokens.places_of(chosen.rows, 1)
        x, y = (blocks.take_rows(rows, chosen.rows, 1) for rows in (tokens.x, y))
        out = blocks.attention(block, blocks.queries(block, y, places), k, v, bias)
        x = blocks.feed_forward(block, blocks.merge(block, x, out))
        origin = tokens.traced(lambda rows: blocks.take_rows(rows, chosen.rows, 1))
        return tokens.having(x, prefix=1, suffix=0, attended=None, origin=origin, places=places)


def _make(slot: Slot, options: ReducedOptions) -> Step:
    return TopK(slot.of_arriving)


REDUCTION = Reduction(
    name="topk",
    make=_make,
    source="arkel23/CLCA",
    pins=("steps.*select/*",),
    arriving=True,
)
