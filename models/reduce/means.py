"""Rows that become one, their weighted mean: before proj or behind it (ToMe, MaMe)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fgdeploy.models.backbone import blocks
from fgdeploy.models.backbone.blocks import Attended, Block
from fgdeploy.models.simplify import Simplification

MERGE_EARLY = Simplification(
    "merge-early",
    "proj is linear and the weights of a mean sum to one, so rows may become one before it",
    "proj of every row that is merged",
)

# Rows [B, T, D] to fewer, and how many patches each of them stands for.
Mean = Callable[[Tensor], tuple[Tensor, Tensor]]


def merged(block: Block, attended: Attended, mean: Mean, early: bool) -> tuple[Tensor, Tensor]:
    """Return the rows behind attention and proj after `mean`, and their sizes.

    early: before proj, where the block has no norm there.
    """
    if not early or not blocks.linear_behind_attention(block):
        return mean(blocks.merge(block, attended.x, attended.out))
    width = attended.x.shape[2]
    rows, size = mean(torch.cat([attended.x, attended.out], dim=2))
    return blocks.merge(block, rows[..., :width], rows[..., width:]), size
