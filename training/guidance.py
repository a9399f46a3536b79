"""Discriminative region guidance: what the teacher looks at most is hidden from the student.

EET, arXiv 2504.16691: the student also sees each image without its most salient patches, so it
learns to use more than one region. Costs nothing when deployed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fgdeploy.models.network import Network
from fgdeploy.models.reduce.scores import token_scores
from fgdeploy.models.tokens import Tokens

PATCHES = 4  # the authors' `--w`


class Saliency:
    """Observes the last block of a dense network: which patches its CLS token looks at.

    `scores` [B, N] are those that a pruning block would select by (`reduce.scores`).
    """

    wants_attention = True

    def __init__(self, network: Network) -> None:
        self._last = len(network.encoder.vit.blocks)
        self._prefix = int(network.encoder.vit.num_prefix_tokens)
        self.scores: Tensor

    def __call__(self, number: int, tokens: Tokens) -> None:
        """Score the patches by the last block's attention."""
        if number == self._last:
            seen = tokens.attended
            assert seen is not None
            self.scores = token_scores(seen.cls_attention(), seen.out_by_head, self._prefix)


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
