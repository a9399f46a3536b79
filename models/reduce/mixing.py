"""All rows behind the prefix become few new ones, before the block (SiT, PatchMerger)."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from fgdeploy.models.backbone.blocks import Block
from fgdeploy.models.tokens import Tokens
from fgdeploy.models.walk import Step


class Mixer(nn.Module):
    """Makes few rows of many."""

    @abstractmethod
    def shares(self, x: Tensor) -> Tensor:
        """Return how much each row of x [B, T, D] weighs in each of the K new ones, [B, K, T]."""


class MixAll(Step):
    """Replace all rows behind the prefix by the `keep` that a module makes of them.

    cluster: from rows [B, T, D] to [B, keep, D]. Where keep is 0 the prefix alone is left, and the
    weights of `cluster` are there for checkpoints alone: no graph has them.
    """

    carries_places = False

    def __init__(self, keep: int, cluster: Mixer) -> None:
        super().__init__()
        self.keep = keep
        self.cluster = cluster

    def forward(self, block: Block, tokens: Tokens) -> Tokens:
        """Mix, then run the block."""
        prefix, old = tokens.prefix, tokens.x[:, tokens.prefix :]

        def mix(rows: Tensor) -> Tensor:
            kept = rows[:, :prefix]
            if not self.keep:
                return kept
            return torch.cat([kept, self.cluster.shares(old) @ rows[:, prefix:]], dim=1)

        x = tokens.x[:, :prefix]
        if self.keep:
            x = torch.cat([x, self.cluster(old)], dim=1)
        return super().forward(block, tokens.having(x, suffix=0, origin=tokens.traced(mix)))
