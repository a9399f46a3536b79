"""Merging by matrix products alone, after MaMe (Huo and Li, CVPR 2026 Findings).

MaMe shares each source row out among the target rows that are like it: cosines above a threshold,
scaled to sum to one, without those below their mean, scaled again. Sources like no target stay, so
its length depends on the images of a batch; only abstract, tables and a summary were at hand, no
code. What is fixed here is ours: `keep_rate` alone decides how many rows are left, as
floor(N kr^s) patches that lie evenly in the sequence are the targets and all others their sources;
a source that is like none goes to the target that is most like it; it acts between attention and
MLP on the keys' mean over heads, and a row that stands for n patches weighs and attends as n, all
three as ToMe has it. CLS, registers, CLR and cached rows stay.

Untrained DeiT-Tiny on 100 bird species, mAP with 64 bits of ITQ at keep rates 0.5 and 0.7: 32.1,
38.9; ToMe 31.9, 39.5; EViT 28.4, 38.8; dense 42.4 (benchmarks/token-reductions.md). Chosen among
variants of the formula on 540 photos, with a script that is not kept: 49.8, 55.9 as it is; 50.1,
56.0 with every source in its best target alone, no difference to rely on, so the authors'
threshold of 0.8 stays; 46.8, 53.7 with one of 0.6; 43.4, 53.0 where sources like no target are
left out.

A graph has no sort, scatter or TopK: MatMul, Gather by constant positions, ReduceMax, ReduceSum,
ReduceMean, ReduceL2 and element-wise operators.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fgdeploy.core.errors import UsageError
from fgdeploy.models.backbone import blocks
from fgdeploy.models.backbone.blocks import Block
from fgdeploy.models.reduce.layers import Product
from fgdeploy.models.reduce.means import MERGE_EARLY, merged
from fgdeploy.models.reduce.reduction import ReducedOptions, Reduction, Slot
from fgdeploy.models.tokens import Tokens
from fgdeploy.models.walk import Step

_TINY = 1e-6


@dataclass(frozen=True)
class MaMeOptions(ReducedOptions):
    """threshold: the cosine above which a row is shared out among several; 1 for the best alone."""

    threshold: float = 0.8


class Share(nn.Module):
    """How source rows are shared out. A module, so that its nodes have a name in the graph."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold
        self.product = Product()

    def forward(self, key: Tensor, targets: Tensor, sources: Tensor) -> Tensor:
        """Return each source's part in each target, [B, targets, sources]; a source's sum to one.

        key: [B, T, d]; targets, sources: positions. Equal ones are treated alike, so that no order
        among them is needed.
        """
        key = key / torch.linalg.vector_norm(key, dim=-1, keepdim=True)
        like = self.product(
            key.index_select(1, targets), key.index_select(1, sources).transpose(1, 2)
        )
        nearest = _parts((like == like.amax(dim=1, keepdim=True)).to(like.dtype))
        if self.threshold == 1:
            return nearest
        links = (like - self.threshold).relu()
        parts = _parts(links)
        count = (links > 0).to(like.dtype).sum(dim=1, keepdim=True)
        mean = parts.sum(dim=1, keepdim=True) / count.clamp(min=1)
        parts = _parts(parts * (parts >= mean - _TINY).to(like.dtype))
        return torch.where(count > 0, parts, nearest)


def _parts(weights: Tensor) -> Tensor:
    """Scale columns to sum to one; those of zeros stay."""
    total = weights.sum(dim=1, keepdim=True)
    return weights / torch.where(total > 0, total, 1.0)


class MaMe(Step):
    """Leave `keep` of the `patches` rows between prefix and suffix."""

    carries_places = False
    simplifications = (MERGE_EARLY,)
    targets: Tensor
    sources: Tensor

    def __init__(self, keep: int, patches: int, threshold: float, first: bool) -> None:
        super().__init__()
        order = _winding(patches) if first else list(range(patches))
        chosen = [order[number * patches // keep] for number in range(keep)]
        others = sorted(set(order) - set(chosen), key=order.index)
        self.register_buffer("targets", torch.tensor(chosen), persistent=False)
        self.register_buffer("sources", torch.tensor(others), persistent=False)
        self.select = Share(threshold)
        self.product = Product()

    def forward(self, block: Block, tokens: Tokens) -> Tokens:
        """Run the block; return prefix, targets with their sources, suffix."""
        attended = blocks.attend(block, tokens.x, tokens.bias())
        tokens = tokens.seeing(attended)
        if len(self.sources) == 0:
            return tokens.having(blocks.complete(block, attended))
        parts = self.select(
            attended.k.mean(dim=1), self.targets + tokens.prefix, self.sources + tokens.prefix
        )
        size = tokens.x.new_ones(tokens.x.shape[:2]) if tokens.size is None else tokens.size
        x, total = merged(
            block,
            attended,
            lambda rows: self._mean(rows, parts, size, tokens),
            self.acts(MERGE_EARLY),
        )
        x = blocks.feed_forward(block, x)
        origin = tokens.traced(lambda rows: self._mean(rows, parts, size, tokens)[0], total)
        return tokens.having(x, size=total, origin=origin)

    def _mean(
        self, rows: Tensor, parts: Tensor, size: Tensor, tokens: Tokens
    ) -> tuple[Tensor, Tensor]:
        """Return prefix, merged rows and suffix, with their sizes; no weight is above one."""
        targets, sources = self.targets + tokens.prefix, self.sources + tokens.prefix
        weights = parts * size.index_select(1, sources).unsqueeze(1)
        own = size.index_select(1, targets)
        total = own + weights.sum(dim=2)
        mean = rows.index_select(1, targets) * (own / total).unsqueeze(2)
        mean = mean + self.product(weights / total.unsqueeze(2), rows.index_select(1, sources))
        end = tokens.count - tokens.suffix
        found, sizes = [rows[:, : tokens.prefix], mean], [size[:, : tokens.prefix], total]
        if tokens.suffix:
            found, sizes = [*found, rows[:, end:]], [*sizes, size[:, end:]]
        return torch.cat(found, dim=1), torch.cat(sizes, dim=1)


def _winding(patches: int) -> list[int]:
    """Return the positions of a square grid with every other row backwards.

    Every second one of them is a chessboard's field, also where rows have an even length.
    """
    side = math.isqrt(patches)
    if side * side != patches:
        return list(range(patches))
    rows = [range(row * side, (row + 1) * side) for row in range(side)]
    return [at for row, ats in enumerate(rows) for at in (ats if row % 2 == 0 else reversed(ats))]


def _kept(slot: Slot) -> int:
    """Return how many patches are left behind a stage, at least one and no more than arrive."""
    if slot.number == 0:
        return slot.patches
    before = _kept(dataclasses.replace(slot, number=slot.number - 1))
    return min(max(1, int(slot.patches * slot.of_all)), before)


def _make(slot: Slot, options: MaMeOptions) -> Step:
    if not 0 <= options.threshold <= 1:
        raise UsageError(f"--set threshold={options.threshold}: expected a cosine from 0 to 1")
    before = _kept(dataclasses.replace(slot, number=slot.number - 1))
    return MaMe(_kept(slot), before, options.threshold, first=slot.number == 1)


REDUCTION = Reduction(
    name="mame",
    make=_make,
    source="after Huo and Li, CVPR 2026 Findings; lengths are ours",
    options=MaMeOptions,
    pins=("steps.*select/*",),
)
