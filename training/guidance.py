"""Discriminative region guidance: what the teacher looks at most is hidden from the student.

EET, arXiv 2504.16691: the student also sees each image without its most salient patches, so it
learns to use more than one region. Costs nothing when deployed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fgdeploy.models import blocks
from fgdeploy.models.eet import token_scores
from fgdeploy.models.staged import StagedViT
from fgdeploy.models.vit import embed_tokens

PATCHES = 4  # the authors' `--w`


def with_saliency(net: StagedViT, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return (embedding [B, D], EET's token scores of the last block [B, N]) of a dense ViT.

    images: normalised [B, 3, S, S]. The scores are those that a pruning block would select by.
    """
    x = embed_tokens(net.vit, images)
    *body, last = net.vit.blocks
    for block in body:
        x = blocks.run(block, x)
    attended = blocks.attend(last, x)
    prefix = int(net.vit.num_prefix_tokens)
    scores = token_scores(attended.cls_attention(), attended.out_by_head, prefix)
    cls = blocks.merge(last, attended.x[:, :1], attended.out[:, :1])
    embedding: Tensor = net.vit.norm(blocks.feed_forward(last, cls))[:, 0]
    return embedding, scores


def hide_salient(
    images: Tensor, scores: Tensor, patch: int, count: int = PATCHES, transposed: bool = False
) -> Tensor:
    """Return images [B, 3, S, S] with the `count` patches of the highest scores [B, N] set to 0.

    Images are normalised, so 0 is the mean colour. transposed: hide the patch mirrored at the
    diagonal, as the authors' code does by exchanging rows and columns; for reproduction only.
    """
    grid = images.shape[-1] // patch
    top = scores.topk(min(count, scores.shape[1]), dim=1).indices
    keep = torch.ones_like(scores).scatter(1, top, 0.0).view(-1, 1, grid, grid)
    if transposed:
        keep = keep.transpose(2, 3)
    mask = keep.repeat_interleave(patch, dim=2).repeat_interleave(patch, dim=3)
    return images * mask.to(images.dtype)
