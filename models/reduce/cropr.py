"""Cropr: learned queries say which rows matter; the others come back for the last block.

'Token Cropr: Faster ViTs for Quite a Few Tasks' (CVPR 2025, arXiv 2412.00965; benbergner/cropr): a
row's score is its product with a query, behind a whole block. The query learns in training alone,
through cross-attention on features that carry no gradient back; an auxiliary class head on what it
gathers (`Tokens.readouts`) teaches it. Last-layer fusion: dropped rows, as they were, join the last
block.

Ours, where the paper prunes a fixed number behind every block: a few stages, floor(N rate) rows of
the N patches in each, at least one, as other reductions have it; CLR and cached rows may go too.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fgdeploy.models.backbone import blocks
from fgdeploy.models.backbone.blocks import Block
from fgdeploy.models.reduce.layers import Product, SmallLinear
from fgdeploy.models.reduce.order import best, positions
from fgdeploy.models.reduce.reduction import ReducedOptions, Reduction, Slot
from fgdeploy.models.tokens import Tokens
from fgdeploy.models.walk import LastStep, Step

_MLP_RATIO = 4


@dataclass(frozen=True)
class CroprOptions(ReducedOptions):
    """fuse: rows that were dropped come back before the last block."""

    fuse: bool = True


class Scorer(nn.Module):
    """A row's score is its product with a query [1, D], not scaled; classification has one query.

    What decides, so it is a module: its nodes have a name in the graph.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.empty(1, width))
        nn.init.trunc_normal_(self.queries, std=width**-0.5)
        self.match = Product()

    def forward(self, x: Tensor) -> Tensor:
        """Return scores [B, T] of rows x [B, T, D]."""
        scores: Tensor = self.match(x, self.queries.transpose(0, 1)).squeeze(2)
        return scores


class Aggregator(nn.Module):
    """What a query gathers, in training alone: softmax(scores / sqrt(D)) X, then an MLP beside it.

    Its weights are kept in checkpoints, so that a training can go on. No graph has them.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(
            SmallLinear(width, _MLP_RATIO * width),
            nn.GELU(),
            SmallLinear(_MLP_RATIO * width, width),
        )

    def forward(self, scores: Tensor, x: Tensor) -> Tensor:
        """Return the feature [B, D] of scores [B, T] and rows x [B, T, D]."""
        shares = (scores * x.shape[2] ** -0.5).softmax(dim=1)
        gathered = (shares.unsqueeze(1) @ x).squeeze(1)
        feature: Tensor = gathered + self.mlp(self.norm(gathered))
        return feature


class Cropr(Step):
    """Behind the block keep CLS and the `keep` rows of the best scores.

    fuse: the others are kept aside as they are.
    """

    def __init__(self, width: int, keep: int, fuse: bool) -> None:
        super().__init__()
        self.keep, self.fuse = keep, fuse
        self.scorer = Scorer(width)
        self.select = Cut()
        self.aggregate = Aggregator(width)

    def forward(self, block: Block, tokens: Tokens) -> Tokens:
        """Run the block and return the tokens that stay."""
        tokens = super().forward(block, tokens)
        x, readouts = tokens.x, tokens.readouts
        if self.training:
            still = x.detach()  # what teaches the query changes nothing else
            readouts = (*readouts, self.aggregate(self.scorer(still), still))
        if self.keep >= tokens.count - 1:
            return tokens.having(x, readouts=readouts)
        kept, others = self.select(self.scorer(x.detach())[:, 1:], self.keep)
        aside, places_aside = tokens.aside, tokens.places_aside
        origin = tokens.traced(lambda rows: blocks.take_rows(rows, kept, 1))
        if self.fuse:
            aside = (*aside, blocks.take_rows(x, others, 1)[:, 1:])
            if (where := tokens.places_of(others, 1)) is not None:
                places_aside = (*places_aside, where[:, 1:])
            if tokens.origin is not None and origin is not None:
                origin = origin.aside_too(blocks.take_rows(tokens.origin.rows, others, 1)[:, 1:])
        x = blocks.take_rows(x, kept, 1)
        return tokens.having(
            x,
            prefix=1,
            suffix=0,
            aside=aside,
            readouts=readouts,
            origin=origin,
            places=tokens.places_of(kept, 1),
            places_aside=places_aside,
        )


class Cut(nn.Module):
    """Which rows stay and which do not, [B, keep] and [B, N - keep]."""

    def forward(self, scores: Tensor, keep: int) -> tuple[Tensor, Tensor]:
        """Return the rows of scores [B, N]."""
        chosen = best(scores, keep)
        return chosen.rows, positions(1 - chosen.mask, scores.shape[1] - keep)


class FusingLast(LastStep):
    """The last block, on the rows kept aside as well (last-layer fusion)."""

    def forward(
        self, block: Block, tokens: Tokens, all_rows: bool = False, attention: bool = False
    ) -> Tokens:
        """Bring the rows back, then run the block."""
        if tokens.aside:
            origin = tokens.origin and tokens.origin.rejoining()
            places = torch.cat(tokens.places_aside, dim=1) if tokens.places_aside else None
            rows = torch.cat(tokens.aside, dim=1)
            tokens = tokens.followed_by(rows, origin=origin, places=places)
            tokens = tokens.having(tokens.x, aside=(), places_aside=())
        return super().forward(block, tokens, all_rows, attention)


def _make(slot: Slot, options: CroprOptions) -> Step:
    return Cropr(slot.width, max(1, int(slot.patches * slot.of_all)), options.fuse)


REDUCTION = Reduction(
    name="cropr",
    make=_make,
    source="arXiv 2412.00965, benbergner/cropr",
    options=CroprOptions,
    pins=("steps.*scorer*", "steps.*select/*"),
    last=FusingLast,
)
