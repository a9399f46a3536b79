"""EET: staged, content-based token pruning and a hash head (arXiv 2504.16691; WhiteJiang/EET).

Inside a pruning block every patch token gets a score from the block's own attention, the best k
stay, and CLS (with any register tokens) always stays. k is a constant per stage.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fgdeploy.models.blocks import Attended
from fgdeploy.models.staged import Shortcuts, StagedViT, keep_best
from fgdeploy.models.stages import Schedule, Stage
from fgdeploy.models.vit import ViT

# "after the 4th, 8th and 10th layers": 98, 49 and 12 of 196 patches, as the authors' code has it.
SCHEDULE = Schedule(((4, 1 / 2), (8, 1 / 4), (10, 1 / 16)))
BACKBONE = "deit_small_patch16_224"


def token_scores(cls_attention: Tensor, out: Tensor, prefix: int) -> Tensor:
    """Score the patch tokens, [B, N]: sum over heads of attention(CLS, i) times head weight.

    The head weight is the norm of a token's attention output in that head over the sum of the
    norms in all heads (paper Eq. 3 to 5, with the softmax over all tokens and the 1e-8 of the
    authors' code). cls_attention: [B, H, T]; out: [B, H, T, d]; T counts `prefix` tokens first.
    """
    norms = torch.linalg.vector_norm(out[:, :, prefix:], dim=-1)
    weights = norms / (norms.sum(dim=1, keepdim=True) + 1e-8)
    scores: Tensor = (cls_attention[:, :, prefix:] * weights).sum(dim=1)
    return scores


def eet(vit: ViT, stages: Sequence[Stage], shortcuts: Shortcuts | None = None) -> StagedViT:
    """Return EET on `vit`; without stages it is the plain ViT."""
    ways = shortcuts or Shortcuts()
    prefix = int(vit.num_prefix_tokens)

    def score(attended: Attended, cls_attention: Tensor) -> Tensor:
        return token_scores(cls_attention, attended.out_by_head, prefix)

    steps = {stage.block: keep_best(stage.keep, score, prefix, ways) for stage in stages}
    return StagedViT(vit, steps, ways)
