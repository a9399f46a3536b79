"""DPC-KNN: rows that lie close together become one (arXiv 2204.08680).

As ported in CLCA (arkel23/CLCA, models/dpcknn.py), before the block, without its random noise. CLS,
registers, CLR and what comes back from a cache stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fgdeploy.core.errors import UsageError
from fgdeploy.models.backbone.blocks import Block
from fgdeploy.models.reduce.layers import Product, SmallLinear
from fgdeploy.models.reduce.order import best, first_least
from fgdeploy.models.reduce.reduction import ReducedOptions, Reduction, Slot
from fgdeploy.models.tokens import Tokens
from fgdeploy.models.walk import Step

# Every stage but the last leaves this many clusters or more.
_LEAST = 5
# Its power is 0 in float32 and float64.
_NONE = -1e30


@dataclass(frozen=True)
class DPCKNNOptions(ReducedOptions):
    """neighbours: nearest rows that tell a density, the row among them, 1 to 64.

    equal_weight: the rows of a cluster weigh alike; nothing is learned then.
    """

    neighbours: int = 5
    equal_weight: bool = False

    def resolved(self, geometry: Any) -> DPCKNNOptions:
        """Return the options with the blocks of this backbone. Raises StageError or UsageError."""
        if not 1 <= self.neighbours <= 64:
            raise UsageError(f"--set neighbours={self.neighbours}: expected a number from 1 to 64")
        return super().resolved(geometry)


def squared_distances(x: Tensor, product: Product) -> Tensor:
    """Return |x_i - x_j|^2 / D of rows [B, N, D], [B, N, N].

    From products of centred rows: what all rows share would cost digits.
    """
    x = x - x.mean(dim=1, keepdim=True)
    norms = (x * x).sum(dim=2)
    found = norms[:, :, None] + norms[:, None] - 2 * product(x, x.transpose(1, 2))
    itself = torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
    return torch.where(itself, 0.0, found).clamp(min=0) / x.shape[2]


class Assign(nn.Module):
    """Which of `count` clusters each row belongs to.

    A row's density is exp(-s), s the mean of d^2 over its nearest rows and itself; delta is how far
    the nearest denser row is, or the farthest of all rows for the densest. Centres have the
    greatest delta times density: its logarithm is compared, which float32 can hold. A module, so
    that its nodes have a name in the graph.
    """

    def __init__(self, count: int, neighbours: int) -> None:
        super().__init__()
        self.count, self.neighbours = count, neighbours
        self.product = Product()

    def forward(self, x: Tensor) -> Tensor:
        """Return ones and zeros [B, N, C] for rows [B, N, D]; C is `count`, at most N.

        Centres in the order of rows; a row between two goes to the first, a centre to itself.
        """
        length = x.shape[1]
        apart = squared_distances(x, self.product)
        near = apart.topk(min(self.neighbours, length), dim=2, largest=False).values
        spread = near.mean(dim=2)
        denser = spread[:, None] < spread[:, :, None]
        delta = torch.where(denser, apart, apart.amax(dim=(1, 2), keepdim=True)).amin(dim=2)
        centres = best(delta.log() / 2 - spread, min(self.count, length)).rows
        found = apart.gather(2, centres[:, None].expand(-1, length, -1))
        rows = torch.arange(length, device=x.device)[None, :, None]
        found = torch.where(rows == centres[:, None], -1.0, found)
        clusters = torch.arange(found.shape[2], device=x.device)
        return (first_least(found)[:, :, None] == clusters).to(x.dtype)


class Cluster(nn.Module):
    """Rows [B, N, D] to the weighted means of their clusters, [B, C, D].

    A row weighs exp(w x + b), or 1 with `equal_weight`; 1e-6 is added to a cluster's weight.
    """

    def __init__(self, width: int, select: Assign, equal_weight: bool) -> None:
        super().__init__()
        self.select = select
        self.score = None if equal_weight else SmallLinear(width, 1)
        self.product = Product()

    def forward(self, x: Tensor) -> Tensor:
        """Return the means in the order of their centres."""
        merged: Tensor = self.product(self.shares(x), x)
        return merged

    def shares(self, x: Tensor) -> Tensor:
        """Return how much each row weighs in each mean, [B, C, N]."""
        weights, most = self.select(x), None
        if self.score is not None:  # a factor of a cluster, so that no power overflows
            powers = torch.where(weights > 0, self.score(x), _NONE)
            most = powers.amax(dim=1, keepdim=True).clamp(min=0)
            weights = (powers - most).exp()
        little = 1e-6 if most is None else 1e-6 * (-most).exp()
        shares: Tensor = weights / (weights.sum(dim=1, keepdim=True) + little)
        return shares.transpose(1, 2)


class DPCKNN(Step):
    """Cluster all rows between prefix and suffix, then run the block."""

    carries_places = False

    def __init__(self, cluster: Cluster) -> None:
        super().__init__()
        self.cluster = cluster

    def forward(self, block: Block, tokens: Tokens) -> Tokens:
        """Run the block on the clusters."""
        prefix, end = tokens.prefix, tokens.count - tokens.suffix
        patches = tokens.x[:, prefix:end]

        def clustered(rows: Tensor, means: Tensor) -> Tensor:
            parts = [rows[:, :prefix], means, *([rows[:, end:]] if tokens.suffix else [])]
            return torch.cat(parts, dim=1)

        def mix(rows: Tensor) -> Tensor:
            return clustered(rows, self.cluster.shares(patches) @ rows[:, prefix:end])

        x = clustered(tokens.x, self.cluster(patches))
        return super().forward(block, tokens.having(x, origin=tokens.traced(mix)))


def _make(slot: Slot, options: DPCKNNOptions) -> Step:
    least = 1 if slot.number == len(options.blocks or ()) else _LEAST
    count = max(int(slot.patches * slot.of_all), least)
    select = Assign(count, options.neighbours)
    return DPCKNN(Cluster(slot.width, select, options.equal_weight))


REDUCTION = Reduction(
    name="dpcknn",
    make=_make,
    source="arXiv 2204.08680, as in arkel23/CLCA",
    options=DPCKNNOptions,
    pins=("steps.*cluster*",),
)
