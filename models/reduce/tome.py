"""ToMe: rows with like keys become their mean (arXiv 2210.09461).

As ported in CLCA (arkel23/CLCA, models/tome.py): between attention and MLP every even row looks for
the odd row whose key is most like its own, and the r best of these pairs become one row each. CLS
is row 0 and only ever stays; registers and cached rows are rows as all others. A row that stands
for n patches weighs n times in a mean, and is n keys to attention (`Tokens.bias`).
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fgdeploy.models.backbone import blocks
from fgdeploy.models.backbone.blocks import Block
from fgdeploy.models.reduce.layers import Product
from fgdeploy.models.reduce.means import MERGE_EARLY, merged
from fgdeploy.models.reduce.order import Chosen, best, first_least, positions
from fgdeploy.models.reduce.reduction import ReducedOptions, Reduction, Slot
from fgdeploy.models.simplify import Simplification
from fgdeploy.models.tokens import Tokens
from fgdeploy.models.walk import Step

MERGE_BY_PRODUCT = Simplification(
    "merge-by-product",
    "adding rows to chosen rows is a product with ones and zeros, and weights may come before it",
    "a scatter-add, which engines run row by row or not at all",
)


@dataclass(frozen=True)
class Pairs:
    """Which rows merge. M even rows without CLS, R odd ones.

    merged: of the even rows; partner: [B, M], the odd row that each is most like.
    """

    merged: Chosen
    partner: Tensor


class Match(nn.Module):
    """Pairs of rows with like keys. A module, so that its nodes have a name in the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.product = Product()

    def forward(self, k: Tensor, count: int) -> Pairs:
        """Return the `count` best pairs by cosine of the keys' mean over heads.

        k: [B, H, T, d]. Of equal likeness the first odd row, and the first even ones.
        """
        key = k.mean(dim=1)
        key = key / torch.linalg.vector_norm(key, dim=-1, keepdim=True)
        unlike = -self.product(key[:, 2::2], key[:, 1::2].transpose(1, 2))
        return Pairs(best(-unlike.amin(dim=2), count), first_least(unlike))


class ToMe(Step):
    """Merge `count` rows away, but at most every even row."""

    carries_places = False
    simplifications = (MERGE_BY_PRODUCT, MERGE_EARLY)

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count
        self.select = Match()
        self.product = Product()

    def forward(self, block: Block, tokens: Tokens) -> Tokens:
        """Run the block; return CLS, the even rows that are left, the odd ones."""
        attended = blocks.attend(block, tokens.x, tokens.bias())
        tokens = tokens.seeing(attended)
        count = min(self.count, (tokens.count - 1) // 2)
        if count <= 0:
            return tokens.having(blocks.complete(block, attended))
        pairs = self.select(attended.k, count)
        size = tokens.x.new_ones(tokens.x.shape[:2]) if tokens.size is None else tokens.size
        by_product = self.acts(MERGE_BY_PRODUCT)
        mean = functools.partial(_by_product, self.product) if by_product else _by_scatter
        x, total = merged(
            block, attended, lambda rows: mean(rows, pairs, size), self.acts(MERGE_EARLY)
        )
        x = blocks.feed_forward(block, x)
        origin = tokens.traced(lambda rows: mean(rows, pairs, size)[0], total)
        return tokens.having(x, prefix=1, suffix=0, size=total, origin=origin)


def _by_product(
    product: Product, rows: Tensor, pairs: Pairs, size: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the merged rows [B, T - r, D] and sizes; no weight is above one."""
    even, odd = size[:, 2::2], size[:, 1::2]
    targets = torch.arange(odd.shape[1], device=rows.device)
    links = (pairs.partner.unsqueeze(1) == targets[:, None]).to(rows.dtype)  # [B, R, M]
    weights = links * (pairs.merged.mask * even).unsqueeze(1)
    total = odd + weights.sum(dim=2)
    mean = rows[:, 1::2] * (odd / total).unsqueeze(2)
    mean = mean + product(weights / total.unsqueeze(2), rows[:, 2::2])
    return _in_order(rows, mean, pairs, size, total)


def _by_scatter(rows: Tensor, pairs: Pairs, size: Tensor) -> tuple[Tensor, Tensor]:
    """Return the same, written as published: sums of rows times sizes, divided by summed sizes."""
    target = pairs.partner.gather(1, pairs.merged.rows)
    wide = target.unsqueeze(2).expand(-1, -1, rows.shape[2])
    weighted = rows * size.unsqueeze(2)
    moved = blocks.take_rows(weighted[:, 2::2], pairs.merged.rows, 0)
    total = size[:, 1::2].scatter_add(1, target, size[:, 2::2].gather(1, pairs.merged.rows))
    mean = weighted[:, 1::2].scatter_add(1, wide, moved) / total.unsqueeze(2)
    return _in_order(rows, mean, pairs, size, total)


def _in_order(
    rows: Tensor, mean: Tensor, pairs: Pairs, size: Tensor, total: Tensor
) -> tuple[Tensor, Tensor]:
    """Put CLS and the even rows that are left, by position, before the means."""
    mask, merged = pairs.merged.mask, pairs.merged.rows.shape[1]
    parts, sizes = [rows[:, :1]], [size[:, :1]]
    if left := mask.shape[1] - merged:
        stay = positions(1 - mask, left)
        parts.append(blocks.take_rows(rows[:, 2::2], stay, 0))
        sizes.append(size[:, 2::2].gather(1, stay))
    return torch.cat([*parts, mean], dim=1), torch.cat([*sizes, total], dim=1)


def _target(slot: Slot, number: int) -> int:
    """Return how many patches are to be left behind a stage."""
    if number == 0:
        return slot.patches
    return int(slot.patches * dataclasses.replace(slot, number=number).of_all)


def _make(slot: Slot, options: ReducedOptions) -> Step:
    return ToMe(_target(slot, slot.number - 1) - _target(slot, slot.number))


REDUCTION = Reduction(
    name="tome",
    make=_make,
    source="arXiv 2210.09461, as in arkel23/CLCA",
    pins=("steps.*select/*",),
    floor="ToMe merges at most half of the rows of a stage: below a keep rate of 0.5 the first "
    "stage cannot merge enough and the later ones merge less, so 0.25 and 0.1 cost more than 0.5",
)
