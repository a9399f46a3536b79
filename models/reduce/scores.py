"""How patch tokens are scored and chosen: what decides, so it is pinned to float32 by its name."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fgdeploy.models.backbone.blocks import Attended, softmax_products
from fgdeploy.models.reduce.order import Chosen, best
from fgdeploy.models.simplify import Simplifiable, Simplification

CLS_ROW = Simplification(
    "cls-row",
    "scores read the CLS row of attention alone, which one extra product gives",
    "writing out the whole attention matrix of a pruning block",
)

FEW_QUERIES = Simplification(
    "few-queries",
    "a row of attention needs its own query alone, and the query of CLS tells which rows stay",
    "queries, attention and proj of the rows that go",
)

# (CLS attention [B, H, T], attention output [B, H, T, d], prefix, suffix) -> scores [B, N].
Score = Callable[[Tensor, Tensor, int, int], Tensor]


def token_scores(cls_attention: Tensor, out: Tensor, prefix: int, suffix: int = 0) -> Tensor:
    """Score the patch tokens, [B, N]: sum over heads of attention(CLS, i) times head weight.

    The head weight is the norm of a token's attention output in that head over the sum of the
    norms in all heads (EET, arXiv 2504.16691, Eq. 3 to 5, with the softmax over all tokens and the
    1e-8 of the authors' code). cls_attention: [B, H, T]; out: [B, H, T, d]; T counts `prefix` rows
    first and `suffix` rows last.
    """
    end = out.shape[2] - suffix
    norms = torch.linalg.vector_norm(out[:, :, prefix:end], dim=-1)
    weights = norms / (norms.sum(dim=1, keepdim=True) + 1e-8)
    scores: Tensor = (cls_attention[:, :, prefix:end] * weights).sum(dim=1)
    return scores


class Select(Simplifiable):
    """The `keep` patches of the best scores, as numbers [B, keep] that count from the first patch.

    A module, so that its nodes have a name in the graph: `steps.N.select`.
    """

    simplifications = (CLS_ROW,)

    def __init__(self, keep: int, score: Score) -> None:
        super().__init__()
        self.keep = keep
        self.score = score

    def forward(self, attended: Attended, prefix: int, suffix: int) -> Tensor:
        """Return the rows in rising order, of equal scores the first; in training in any order."""
        if self.acts(CLS_ROW):
            cls_attention = attended.cls_attention()
        else:
            cls_attention = attended.full_attention()[:, :, 0]
        scores = self.score(cls_attention, attended.out_by_head, prefix, suffix)
        if self.training:  # as the authors train; the order of rows would change the last digits
            return scores.topk(self.keep, dim=1, sorted=False).indices
        return best(scores, self.keep).rows


class ByCLS(Simplifiable):
    """The rows that CLS attends to most, in the mean of the heads (EViT, arXiv 2202.07800, Eq. 3).

    A module, so that its nodes have a name in the graph. Every row but CLS has a score.
    """

    simplifications = (CLS_ROW,)

    def forward(
        self, q: Tensor, k: Tensor, bias: Tensor | None, keep: int
    ) -> tuple[Chosen, Tensor]:
        """Return the best `keep` of the T - 1 rows behind CLS, and the scores [B, T - 1].

        q: [B, H, Tq, d] with CLS in row 0; k: [B, H, T, d]; bias: added before the softmax.
        """
        asking = q[:, :, :1] if self.acts(CLS_ROW) else q
        scores = softmax_products(asking, k, bias)[:, :, 0, 1:].mean(dim=1)
        return best(scores, keep), scores
