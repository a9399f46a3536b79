"""SACM: attention of all blocks and heads fused into one mask of patches (AFTrans, section 2.3).

'A free lunch from ViT: adaptive attention multi-scale fusion Transformer' (ICASSP 2022), Eq. 6 to
9: heads are multiplied, layers weighted by gates, the best entries of all layers taken together. A
product of twelve rows of softmax is below what float32 holds, so all is done with logarithms
(docs/methods.md, section 4.2): score = log(gate of the layer) + sum over heads of log(attention).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fgdeploy.models.backbone.blocks import Attended, scaled_products
from fgdeploy.models.looks.crop import in_full
from fgdeploy.models.reduce.order import mask_of_best
from fgdeploy.models.tokens import Tokens

POOLS = ("cls", "full_map")


@dataclass(frozen=True)
class Fused:
    """What SACM makes of the CLS rows of L blocks, over N patches.

    gates: [B, L], in 0..1. roots: [B, L, N], each patch's attention as the geometric mean of the
    heads, T-fold. scores: [B, L, N], logarithms of gate times product. mask: [B, N], 1 where a
    patch has one of the best scores in any block, else 0.
    """

    gates: Tensor
    roots: Tensor
    scores: Tensor
    mask: Tensor

    @property
    def attention(self) -> Tensor:
        """Return for each patch the greatest of its gated products, as an H-th root: [B, N].

        The patches of the mask are those where it is greatest.
        """
        return self.scores.amax(dim=1).exp()


class CLSLogs(nn.Module):
    """The CLS row's products over heads, as logarithms. A module, so that its nodes are pinned."""

    def forward(self, attended: Attended) -> Tensor:
        """Return sum over heads of log(attention), [B, T]."""
        return attended.cls_log_attention().sum(dim=1)


class SACM(nn.Module):
    """Gates of L layers by two products, sigmoid(W2 relu(W1 pooled)), and the choice of patches.

    keep: share of the L N entries that is chosen, rounded down, at least one. hidden: rows of W1.
    pool: a layer is told by its CLS row (`cls`) or by its whole attention (`full_map`), each the
    mean of the geometric mean over heads, times T: the paper's own mean of products is zero in
    float32. W2 starts at zero, so that all gates are 1/2; nothing but `reweight` of the local
    branch ever changes them, as no gradient comes through the choice. W1 starts above zero, as
    what it is given is, so that every row of it can learn.
    """

    def __init__(self, depth: int, hidden: int, keep: float, pool: str) -> None:
        super().__init__()
        self.fc1 = nn.Linear(depth, hidden, bias=False)
        self.fc2 = nn.Linear(hidden, depth, bias=False)
        nn.init.uniform_(self.fc1.weight, 0.0, 2.0 / depth)
        nn.init.zeros_(self.fc2.weight)
        self.logs = CLSLogs()
        self.keep, self.pool = keep, pool

    def forward(self, read: CLSReader) -> Fused:
        """Fuse what was read of all blocks."""
        with in_full(read.logs[0]):
            logs = torch.stack(read.logs, dim=1)
            roots = (logs / read.heads).exp() * logs.shape[2]
            pooled = roots.mean(dim=2)
            if self.pool != POOLS[0]:
                pooled = torch.stack(read.means, dim=1)
            raw = self.fc2(self.fc1(pooled).relu())
            scores = logs[:, :, read.prefix :] - F.softplus(-raw).unsqueeze(2)
            mask = self._mask(scores.detach())
        return Fused(raw.sigmoid(), roots[:, :, read.prefix :], scores, mask)

    def _mask(self, scores: Tensor) -> Tensor:
        count = max(1, math.floor(self.keep * scores.shape[1] * scores.shape[2]))
        chosen = mask_of_best(scores.flatten(1), count)
        return chosen.view(scores.shape).amax(dim=1)


class CLSReader:
    """An observer that keeps what SACM needs of each block; never a whole attention map.

    logs: of each block [B, T]; means: of each block [B], with `full_map`.
    """

    wants_attention = True

    def __init__(self, sacm: SACM) -> None:
        self._sacm = sacm
        self.logs: list[Tensor] = []
        self.means: list[Tensor] = []
        self.prefix, self.heads = 1, 1

    def __call__(self, number: int, tokens: Tokens) -> None:
        """Read one block."""
        attended = tokens.attended
        assert attended is not None
        if number == 1:
            self.prefix = tokens.prefix
        self.heads = int(attended.q.shape[1])
        with in_full(tokens.x):
            self.logs.append(self._sacm.logs(attended))
            if self._sacm.pool != POOLS[0]:
                self.means.append(_mean_of_map(attended))


def _mean_of_map(attended: Attended) -> Tensor:
    """Return the mean over [T, T] of the geometric mean over heads, times T: [B]."""
    kind = torch.promote_types(attended.q.dtype, torch.float32)
    q, k = attended.q.detach().to(kind), attended.k.detach().to(kind)
    logs = scaled_products(q, k, attended.bias).log_softmax(dim=-1).mean(dim=1)
    return logs.exp().mean(dim=(1, 2)) * logs.shape[2]
