"""ATS: sample the rows by what they give to CLS, as many or fewer (arXiv 2111.15667).

As ported in CLCA (arkel23/CLCA, models/ats.py), one image at a time. There an image keeps as many
rows as it has different samples; here it keeps a row for every sample, in rising order, and one
that repeats the row before it is masked. A masked row is a copy: its products are those of the row
before it, so -1e4 beside them leaves it no weight in any softmax, in half precision too.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fgdeploy.models.backbone import blocks
from fgdeploy.models.backbone.blocks import Block, softmax_products
from fgdeploy.models.reduce.order import first_least, rising
from fgdeploy.models.reduce.reduction import ReducedOptions, Reduction, Slot
from fgdeploy.models.reduce.scores import CLS_ROW, FEW_QUERIES
from fgdeploy.models.simplify import Simplifiable
from fgdeploy.models.tokens import Tokens
from fgdeploy.models.walk import Step, cls_only

# Farther than any two values of a cdf.
_NEVER = 4.0


def sample_points(count: int) -> Tensor:
    """Return the authors' points in 0..1 for K = count, float32: mostly K - 1, K for some K."""
    first, end = 1 / (2 * count), (2 * count - 1) / (2 * count)
    return torch.arange(first, end, 2 / (2 * count), dtype=torch.float32)


class Samples(Simplifiable):
    """The rows behind CLS whose cdf lies nearest to the sample points.

    The share of row j is sum over heads of attention(CLS, j) |v_h(j)|, over (their sum + 1e-6). A
    module, so that its nodes have a name in the graph.
    """

    simplifications = (CLS_ROW,)
    points: Tensor

    def __init__(self, points: Tensor) -> None:
        super().__init__()
        self.register_buffer("points", points, persistent=False)

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, counts: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return rows [B, P], rising, that count from the first behind CLS; and which are new.

        q: [B, H, Tq, d] with CLS in row 0; k, v: [B, H, T, d]; bias: added before the softmax;
        counts: [B, T], True where a row counts, None where all do. The second answer is [B, P].
        """
        asking = q[:, :, :1] if self.acts(CLS_ROW) else q
        attention = softmax_products(asking, k, bias)[:, :, 0, 1:]
        shares = (attention * torch.linalg.vector_norm(v[:, :, 1:], dim=-1)).sum(dim=1)
        if counts is not None:
            shares = torch.where(counts[:, 1:], shares, 0.0)
        cdf = (shares / (shares.sum(dim=1, keepdim=True) + 1e-6)).cumsum(dim=1)
        apart = (self.points.to(cdf.dtype)[None, :, None] - cdf[:, None]).abs()
        if counts is not None:
            apart = torch.where(counts[:, None, 1:], apart, _NEVER)
        rows = rising(first_least(apart).to(cdf.dtype)).to(torch.int64)
        new = torch.ones_like(rows[:, :1], dtype=torch.bool)
        if rows.shape[1] > 1:
            new = torch.cat([new, rows[:, 1:] != rows[:, :-1]], dim=1)
        return rows, new


class ATS(Step):
    """Keep CLS and a row for each sample point. count: K, the authors' upper bound of all rows."""

    simplifications = (FEW_QUERIES,)

    def __init__(self, count: int) -> None:
        super().__init__()
        points = sample_points(count)
        self.select = Samples(points) if len(points) else None

    def forward(self, block: Block, tokens: Tokens) -> Tokens:
        """Run the block and return the tokens that stay, with their mask."""
        if self.select is None or tokens.count == 1:  # no point, or nothing left to sample
            return cls_only(block, tokens, attention=not self.acts(FEW_QUERIES))
        x, out, rows, new, tokens = self._sampled(self.select, block, tokens)
        x = blocks.feed_forward(block, blocks.merge(block, x, out))
        mask = torch.cat([torch.ones_like(new[:, :1]), new], dim=1)
        origin = tokens.traced(lambda part: blocks.take_rows(part, rows, 1) * mask.unsqueeze(2))
        places = tokens.places_of(rows, 1)
        return tokens.having(x, prefix=1, suffix=0, mask=mask, origin=origin, places=places)

    def _sampled(
        self, select: Samples, block: Block, tokens: Tokens
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tokens]:
        """Return CLS and the samples as they came and behind attention; rows, and which are new.

        Last the tokens, with what they attended where all of it was computed.
        """
        bias = tokens.bias()
        if not self.acts(FEW_QUERIES):
            seen = blocks.attend(block, tokens.x, bias, tokens.places)
            rows, new = select(seen.q, seen.k, seen.v, bias, tokens.mask)
            x, out = (blocks.take_rows(part, rows, 1) for part in (seen.x, seen.out))
            return x, out, rows, new, tokens.seeing(seen)
        y = blocks.enter_attention(block, tokens.x)
        k, v = blocks.keys_values(block, y, tokens.places)
        asking = blocks.queries(block, y[:, :1], tokens.cls_place)
        rows, new = select(asking, k, v, bias, tokens.mask)
        q = blocks.queries(block, blocks.take_rows(y, rows, 1), tokens.places_of(rows, 1))
        out = blocks.attention(block, q, k, v, bias)
        x = blocks.take_rows(tokens.x, rows, 1)
        return x, out, rows, new, tokens.having(tokens.x, attended=None)


def _make(slot: Slot, options: ReducedOptions) -> Step:
    return ATS(int(slot.of_all * slot.patches) + 1)


REDUCTION = Reduction(
    name="ats",
    make=_make,
    source="arXiv 2111.15667, as in arkel23/CLCA",
    pins=("steps.*select/*",),
)
