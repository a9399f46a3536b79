"""All rows behind the prefix become few new ones, before the block (SiT, PatchMerger)."""

from __future__ import annotations

import torch
from torch import nn

from fgdeploy.models.backbone.blocks import Block
from fgdeploy.models.tokens import Tokens
from fgdeploy.models.walk import Step


class MixAll(Step):
    """Replace all rows behind the prefix by the `keep` that a module makes of them.

    cluster: from rows [B, T, D] to [B, keep, D]. Where keep is 0 the prefix alone is left, and the
    weights of `cluster` are there for checkpoints alone: no graph has them.
    """

    def __init__(self, keep: int, cluster: nn.Module) -> None:
        super().__init__()
        self.keep = keep
        self.cluster = cluster

    def forward(self, block: Block, tokens: Tokens) -> Tokens:
        """Mix, then run the block."""
        x = tokens.x[:, : tokens.prefix]
        if self.keep:
            x = torch.cat([x, self.cluster(tokens.x[:, tokens.prefix :])], dim=1)
        return super().forward(block, tokens.having(x, suffix=0))
