"""How alike each patch is to CLS: what decides where a network looks next (GLSim)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_EPS = 1e-8  # torch's cosine_similarity


def _cosine(cls: Tensor, patches: Tensor) -> Tensor:
    lengths = [one.square().sum(dim=-1).sqrt().clamp(min=_EPS) for one in (cls, patches)]
    return (cls * patches).sum(dim=-1) / (lengths[0] * lengths[1])


def _absolute(cls: Tensor, patches: Tensor) -> Tensor:
    return (patches - cls).abs().mean(dim=-1)


def _squared(cls: Tensor, patches: Tensor) -> Tensor:
    return (patches - cls).square().mean(dim=-1)


# By the name of the metric: what it is, and whether the largest value is the most alike.
METRICS = {"cos": (_cosine, True), "l1": (_absolute, False), "l2": (_squared, False)}


class Similarity(nn.Module):
    """Values [B, N] of the patches against CLS, in float32 at least; no gradient comes back.

    metric: `cos`, or the mean over D of |f_0 - f_i| (`l1`) or (f_0 - f_i)^2 (`l2`), where the
    smallest is the most alike. A module, so that its nodes have a name to pin.
    """

    def __init__(self, metric: str) -> None:
        super().__init__()
        self.metric = metric

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the values of tokens [B, 1 + N, D], CLS first."""
        held = tokens.detach()
        held = held.to(torch.promote_types(held.dtype, torch.float32))
        found: Tensor = METRICS[self.metric][0](held[:, :1], held[:, 1:])
        return found

    def scores(self, values: Tensor) -> Tensor:
        """Return values of which the greatest is the most alike."""
        return values if METRICS[self.metric][1] else -values
